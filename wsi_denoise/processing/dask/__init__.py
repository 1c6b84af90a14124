"""Distribute blocks over workers with Dask."""
