"""Sentences for the person who has to act."""


class TrainError(Exception):
    """Something a person can mend; its text is one sentence that says what is wrong and what to do."""


class ConfigError(TrainError):
    """The configuration does not hold together, or does not fit what a run began with."""


class ShardError(TrainError):
    """Shards that are missing, damaged, or do not belong together."""


class DamageError(ShardError):
    """A shard, its index or an image is not what it should be."""


class CheckpointError(TrainError):
    """A checkpoint that is missing, damaged, or of another run."""


class FeatureError(TrainError):
    """A table of features that is missing, damaged, or too small for what is to be measured on it."""


class ProbeError(TrainError):
    """A downstream data set that does not lie as its release does, or an encoder that does not keep its promise."""
