"""The database of jobs: engine, models, migrations, backup."""
