"""The one driver of a build, whoever runs the groups: it owns their retries and records failed attempts."""

from __future__ import annotations

import errno
import json
import socket
import tempfile
import time
import traceback
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Final, Protocol

from exaone_prep import layout
from exaone_prep.dataset import Dataset
from exaone_prep.errors import BuildStoppedError, PrepError, SlideChangedError, StorageConflictError
from exaone_prep.group import GroupBuilder
from exaone_prep.ledger import committed_groups
from exaone_prep.scratch import ScratchTooSmallError
from exaone_prep.stain.method import StainMethodDefectError
from exaone_prep.storage import Storage, put_bytes

ATTEMPTS: Final = 3

_HOPELESS: Final = (StorageConflictError, SlideChangedError, ScratchTooSmallError)
"""Another attempt would end in the same way."""

_NO_ROOM: Final = frozenset({errno.ENOSPC, errno.EDQUOT, errno.EROFS})
"""No group can be committed any more: the build stops at once instead of failing group by group.

A full scratch on a disk of its own does not come here: `GroupBuilder.build` waits.
"""


class BuildIncompleteError(PrepError):
    """Some groups could not be built; everything else is committed."""


@dataclass(frozen=True, kw_only=True)
class Failure:
    """How an attempt at a group ended, and where."""

    error: PrepError | OSError
    trace: str
    log_tail: str
    host: str = field(default_factory=socket.gethostname)


@dataclass(frozen=True, kw_only=True)
class Watch:
    """What is told of a build while it runs, in the driver.

    Attributes:
        say: Sentences for people, such as that a group waits.
        on_start: An attempt at a group begins.
        on_end: It has ended, with how it failed if it did.
    """

    say: Callable[[str], None] = lambda _: None
    on_start: Callable[[int], None] = lambda _: None
    on_end: Callable[[int, Failure | None], None] = lambda _, __: None


UNWATCHED: Final = Watch()


class Executor(Protocol):
    """Runs groups somewhere. Only numbers and small records travel."""

    def run(self, groups: Sequence[int]) -> Iterator[tuple[int, Failure | None]]:
        """Build groups; yield each as it ends, with how it failed if it did."""


def run(groups: Sequence[int], executor: Executor, dataset: Dataset, watch: Watch = UNWATCHED) -> None:
    """Build groups until all are committed or each other one has failed `ATTEMPTS` times.

    Args:
        groups: Their numbers.
        executor: Runs them.
        dataset: Of which they are.
        watch: Is told how attempts end.

    Raises:
        BuildIncompleteError: Naming the groups that failed, and why the first did.
        OSError: The disk is full or read-only.
        StorageConflictError: Another environment made other bytes.
        StainMethodDefectError: Mending the method makes another data set; there is no use in going on with this one.
        BuildStoppedError: It was asked to end.
    """
    failures: Counter[int] = Counter()
    lost: dict[int, Failure] = {}
    waiting = list(groups)
    while waiting:
        again: list[int] = []
        for group, failure in executor.run(waiting):
            if failure is not None and isinstance(failure.error, BuildStoppedError):
                raise failure.error
            watch.on_end(group, failure)
            if failure is None:
                continue
            failures[group] += 1
            _record(dataset.storage, group, failure)
            if isinstance(failure.error, StorageConflictError | StainMethodDefectError):
                raise failure.error
            if isinstance(failure.error, OSError) and failure.error.errno in _NO_ROOM:
                raise failure.error
            if failures[group] < ATTEMPTS and not isinstance(failure.error, _HOPELESS):
                again.append(group)
            else:
                lost[group] = failure
        waiting = again
    if lost:
        names = ", ".join(str(group) for group in sorted(lost)[:10]) + (" and more" if len(lost) > 10 else "")
        first = lost[min(lost)]
        raise BuildIncompleteError(
            f"{len(lost)} of {len(groups)} groups could not be built (groups {names}): {first.error} "
            f"What is committed is kept: mend the cause and run the same command again."
        )


def missing_groups(dataset: Dataset) -> list[int]:
    """Groups without a commit record."""
    return sorted(set(dataset.groups) - set(committed_groups(dataset.storage)))


class LocalExecutor:
    """One group after the other on this machine; the slides of a group go to the workers in parallel."""

    def __init__(self, builder: GroupBuilder, watch: Watch = UNWATCHED) -> None:
        self._builder = builder
        self._watch = watch

    def run(self, groups: Sequence[int]) -> Iterator[tuple[int, Failure | None]]:
        """See `Executor`."""
        for group, then in zip(groups, [*groups[1:], None], strict=True):
            self._watch.on_start(group)
            yield group, attempt(self._builder, group, then)


def attempt(builder: GroupBuilder, group: int, then: int | None = None) -> Failure | None:
    """Try to build a group; how it failed if it did, in a form that can travel.

    Args:
        builder: Does it.
        group: Its number.
        then: See `GroupBuilder.build`.
    """
    try:
        builder.build(group, then)
    except (PrepError, OSError) as error:
        trace = builder.dataset.names.hide(traceback.format_exc())
        return Failure(error=error, trace=trace or "", log_tail=builder.log.tail() if builder.log is not None else "")
    return None


def _record(storage: Storage, group: int, failure: Failure) -> None:
    """Keep a failed attempt for people; that this fails as well must not hide the failure itself."""
    sentence = sentence_of(failure.error)
    document = {
        "group": group,
        "host": failure.host,
        "time": time.time(),
        "error": type(failure.error).__name__,
        "sentence": sentence,
        "log": failure.log_tail,
        "traceback": failure.trace,
    }
    prefix = f"group-{group:06d}-"
    try:
        numbers = [
            int(name.removeprefix(prefix).removesuffix(".json"))
            for name in storage.names(layout.ATTEMPTS)
            if name.startswith(prefix)
        ]
        with tempfile.TemporaryDirectory() as folder:
            data = json.dumps(document, indent=1).encode()
            put_bytes(storage, layout.attempt(group, max(numbers, default=0) + 1), data, Path(folder))
    except (OSError, PrepError):
        return


def sentence_of(error: BaseException) -> str:
    """An error in one sentence."""
    if isinstance(error, OSError):
        where = f" ({error.filename})" if error.filename else ""
        return f"{error.strerror or error}{where}."
    return str(error)
