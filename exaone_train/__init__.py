"""A thin DINO trainer that streams prebuilt shards; it knows them by their format alone."""
