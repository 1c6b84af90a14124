"""The job database: tables, states, queries and changes of jobs."""
