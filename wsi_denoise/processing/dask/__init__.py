"""Distribution of blocks over workers by Dask."""
