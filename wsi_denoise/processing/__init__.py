"""One slide through the block pipeline, on a Dask cluster."""
