"""Groups built on a Dask cluster: only numbers and small records travel, and Dask retries nothing."""
