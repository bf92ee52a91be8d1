"""From whole-slide images to verified, mixed, stain-normalised shards."""

__version__ = "0.1.0"
