"""Process a slide block by block on a Dask cluster."""
