"""Shards: tars of samples, and the index that finds every sample in them."""
