"""Errors are sentences for the person who has to act; the exit code of a command follows from their kind."""

from __future__ import annotations

from typing import Literal, get_args

Reason = Literal[
    "not_a_file",
    "empty_file",
    "not_a_slide",
    "unreadable",
    "crashed",
    "no_mpp",
    "absurd_mpp",
    "anisotropic",
    "too_coarse",
    "not_he",
    "duplicate",
]
"""Why a slide is set aside. `docs/operations.md` says what to do about each."""

REASONS: tuple[Reason, ...] = get_args(Reason)


class PrepError(Exception):
    """Anything that stops a command; its text is one sentence a person can act on."""

    exit_code = 1


class ManifestError(PrepError):
    """The manifest, the table it names, or a setting on the command line is wrong."""

    exit_code = 2


class DatasetError(PrepError):
    """A directory is not the data set that the command needs (another manifest, another format, unfinished)."""

    exit_code = 2


class VerificationError(PrepError):
    """What lies in a data set is not what its ledger says."""

    exit_code = 3


class StorageConflictError(PrepError):
    """A name to be created exists with other bytes: two environments do not build the same thing."""

    exit_code = 4


class SlideProblemError(PrepError):
    """A slide cannot become patches: it is quarantined with this reason, and the build goes on."""

    def __init__(self, reason: Reason, sentence: str) -> None:
        super().__init__(sentence)
        self.reason: Reason = reason

    def __reduce__(self) -> tuple[type[SlideProblemError], tuple[Reason, str]]:
        return (type(self), (self.reason, str(self)))


class UnreachableError(PrepError):
    """A slide or a store cannot be reached (network, permission): nobody's fault, retried, then its group fails."""


class SlideChangedError(PrepError):
    """A slide is no longer what the catalog froze: its group fails by name."""


class BuildStoppedError(PrepError):
    """A build was asked to end before its end: no failed attempt, and nobody's fault."""

    exit_code = 130
