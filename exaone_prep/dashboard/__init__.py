"""A web page, metrics and a terminal view of data sets: read-only, from nothing but their directories."""
