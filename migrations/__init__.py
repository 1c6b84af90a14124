"""Alembic's migrations of the job database; ``wsi-denoise db upgrade`` runs them."""
