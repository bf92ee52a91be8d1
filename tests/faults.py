"""Faults by a seeded plan, at random moments of one build, and someone who starts again whatever has died.

A scene is a build with all that runs for it. `disturb` lets faults befall it, one after the other, each a random while
after a random number of groups is committed; meanwhile and afterwards the scene keeps itself going.
"""

from __future__ import annotations

import random
import signal
import subprocess
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Final

from tests.builds import Ended, finish, start
from tests.daskcluster import DaskProcesses
from tests.disks import fill
from tests.processes import kill, of_kind
from tests.store import Errors, LostAnswers, Slow, Store

LOOK_EVERY_S: Final = 0.1
MOST_WAIT_S: Final = 1.5
"""Between the commit of a group and the fault that follows it."""

QUIET_AT_THE_END: Final = 3
"""Groups that no fault waits for: whatever is lost must still be made good, and swept, by the build itself."""

LEFT_BYTES: Final = 40_000
"""On a disk that is full, but for less than a group needs."""

STOPS_WITHIN_S: Final = 30.0


@dataclass
class Scene:
    """A build, its store and its disk; `keep` differs with who runs the build.

    Attributes:
        mark: By which its processes are known.
        words: Of the command that builds it, with or without Prefect.
        store: That holds slides and data set.
        prefix: Of the data set in it.
        chance: Decides everything that is random.
        until: When it must have ended, in the clock's monotonic seconds.
        disk: With the scratch, where it is a disk of its own.
        done: Whether the build has ended well.
        endings: How commands ended, the last one last.
        faults: Of the store, for counting.
    """

    mark: str
    words: tuple[str, ...]
    store: Store
    prefix: str
    chance: random.Random
    until: float
    disk: Path | None = None
    done: bool = False
    endings: list[Ended] = field(default_factory=list)
    faults: list[Errors | Slow | LostAnswers] = field(default_factory=list)
    _due: list[tuple[float, Callable[[], None]]] = field(default_factory=list)

    def keep(self) -> None:
        """Start again what has died, as whoever runs builds would."""
        raise NotImplementedError

    def committed(self) -> int:
        """How many groups are, as the store saw it."""
        ledger = f"{self.prefix}/ledger/"
        puts = (one for one in self.store.requests if one.method == "PUT" and one.fault != "Errors")
        return len({one.key for one in puts if one.key.startswith(ledger)})

    def wait(self, condition: Callable[[], bool]) -> None:
        """Keep the scene going until something holds; fail the test if it does not in time."""
        while not condition():
            assert time.monotonic() < self.until, f"not in time; {self.committed()} groups are committed"
            for moment, act in [one for one in self._due if one[0] <= time.monotonic()]:
                self._due.remove((moment, act))
                act()
            self.keep()
            time.sleep(LOOK_EVERY_S)

    def later(self, seconds: float, act: Callable[[], None]) -> None:
        """Do something after a while."""
        self._due.append((time.monotonic() + seconds, act))

    def kill(self, kind: str) -> bool:
        """Kill one process of a kind; whether there was one."""
        found = of_kind(self.mark, kind)
        return bool(found) and kill(self.chance.choice(found))

    def befall(self, fault: Errors | Slow | LostAnswers) -> bool:
        """Let a fault befall the store until it has had its times."""
        self.faults.append(fault)
        self.store.befall(fault)
        return True

    def fill_disk(self) -> bool:
        """Fill the disk of the scratch for a few seconds; whether it was not full yet."""
        assert self.disk is not None
        if (self.disk / "ballast").exists():
            return False
        try:
            ballast = fill(self.disk, LEFT_BYTES)
        except (OSError, ValueError):  # a group was quicker, and now it is really full
            ballast = self.disk / "ballast"
        self.later(self.chance.uniform(2, 5), lambda: ballast.unlink(missing_ok=True))
        return True

    def second_builder(self) -> bool:
        """Start the same build once more, beside; it is told to stop after a while."""
        process = start(*self.words)
        self.later(self.chance.uniform(3, 10), lambda: self._stop(process))
        return True

    def _stop(self, process: subprocess.Popen[str]) -> None:
        process.send_signal(signal.SIGTERM)
        self.end(process, {0, 1, 130, -signal.SIGTERM})  # the last where it was about to end by itself

    def end(self, process: subprocess.Popen[str], codes: set[int]) -> Ended:
        """Take a command's end down: in time, with a sentence, and with one of some codes if nobody killed it."""
        ended = finish(process, STOPS_WITHIN_S)
        self.endings.append(ended)
        assert ended.code in {*codes, -signal.SIGKILL}, ended.err
        assert "Traceback" not in ended.err, ended.err
        return ended

    def finish(self) -> None:
        """Keep going until the build has ended, and whatever was to follow a fault has."""
        self.wait(lambda: self.done and not self._due)


Fault = Callable[[Scene], bool]
"""Strikes a scene; False where there was nothing to strike at this moment."""

FAULTS: Final[Mapping[str, Fault]] = {
    "a worker process of the pool is killed": lambda scene: scene.kill("pool worker"),
    "a process that builds a group is killed": lambda scene: scene.kill("group builder"),
    "a Dask worker is killed": lambda scene: scene.kill("dask worker"),
    "the Dask scheduler is killed": lambda scene: scene.kill("dask scheduler"),
    "the driver is killed": lambda scene: scene.kill("driver"),
    "the flow's process is killed": lambda scene: scene.kill("flow"),
    "the Prefect server is killed": lambda scene: scene.kill("prefect server"),
    "the store fails now and then": lambda scene: scene.befall(
        Errors(share=0.05, times=10, seed=scene.chance.randrange(1000))
    ),
    "the store is gone": lambda scene: scene.befall(Errors(share=1, times=scene.chance.randrange(5, 15))),
    "the store is slow": lambda scene: scene.befall(
        Slow(share=0.2, times=10, seconds=1, seed=scene.chance.randrange(1000))
    ),
    "the answer to a shard is lost": lambda scene: scene.befall(LostAnswers(matching="^PUT .*/shards/", times=1)),
    "the answer to a commit is lost": lambda scene: scene.befall(LostAnswers(matching="^PUT .*/ledger/", times=1)),
    "the scratch is full": Scene.fill_disk,
    "a second builder starts": lambda scene: scene.second_builder(),
}


def plan(names: Sequence[str], count: int, chance: random.Random) -> list[str]:
    """So many faults in random order, each about as often as any other."""
    some = [names[number % len(names)] for number in range(count)]
    chance.shuffle(some)
    return some


def disturb(scene: Scene, names: Sequence[str], groups: int) -> None:
    """Let faults befall a build of so many groups, and keep it going to its end."""
    moments = sorted(scene.chance.randrange(groups - QUIET_AT_THE_END) for _ in names)
    for number, (name, moment) in enumerate(zip(names, moments, strict=True), start=1):
        _strike(scene, FAULTS[name], moment)
        assert not scene.done, f"the build ended before fault {number} of {len(names)}"
    scene.finish()


def _strike(scene: Scene, fault: Fault, moment: int) -> None:
    scene.wait(lambda: scene.committed() >= moment)
    then = time.monotonic() + scene.chance.uniform(0, MOST_WAIT_S)
    scene.wait(lambda: time.monotonic() >= then)
    scene.wait(lambda: scene.done or fault(scene))


@dataclass
class CommandScene(Scene):
    """A build by the command line, here or on a Dask cluster.

    Attributes:
        cluster: Where it builds.
        workers: Of the cluster.
    """

    cluster: DaskProcesses | None = None
    workers: int = 2
    _driver: subprocess.Popen[str] | None = None

    def keep(self) -> None:
        """See `Scene`."""
        if self.cluster is not None:
            self.cluster.keep(self.workers)
        if self._driver is not None and self._driver.poll() is not None:
            ended = self.end(self._driver, {0, 1})
            self._driver = None
            self.done = ended.code == 0
        if self._driver is None and not self.done:
            self._driver = start(*self.words)
