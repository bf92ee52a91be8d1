"""Builds as a person runs them: by the command line, in processes that can be killed."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path

COMMAND = (sys.executable, "-m", "exaone_prep.cli")


@dataclass(frozen=True)
class Ended:
    """How a command ended."""

    code: int
    out: str
    err: str


def start(*words: str, env: dict[str, str] | None = None) -> subprocess.Popen[str]:
    """Start `exaone-prep` in a process group of its own."""
    return subprocess.Popen(
        [*COMMAND, *words],
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        env={**os.environ, **(env or {})},
        start_new_session=True,
    )


def finish(process: subprocess.Popen[str], timeout_s: float = 240) -> Ended:
    """Wait for a command; kill its whole group if it hangs."""
    try:
        out, err = process.communicate(timeout=timeout_s)
    except subprocess.TimeoutExpired:
        os.killpg(process.pid, signal.SIGKILL)
        out, err = process.communicate()
        raise AssertionError(f"the command hangs: {process.args!r}\n{err}") from None
    return Ended(process.returncode, out, err)


def command(*words: str, env: dict[str, str] | None = None) -> Ended:
    """Run `exaone-prep` to its end."""
    return finish(start(*words, env=env))


def build(slides: Path, out: Path, *words: str, env: dict[str, str] | None = None) -> str:
    """Build all TIFFs of a folder and return the digest; fails the test if the build does."""
    ended = command(*build_words(slides, out), *words, env=env)
    assert ended.code == 0, ended.err
    return digest_of(out)


def build_words(slides: Path, out: Path) -> tuple[str, ...]:
    """The command line of `build`."""
    return ("build", "--slides", f"{slides}/*.tiff", "--out", str(out))


def digest_of(out: Path) -> str:
    """The digest in `build.json`."""
    return str(json.loads((out / "build.json").read_text())["digest"])


def files_of(out: Path) -> dict[str, bytes]:
    """Every file whose bytes must not depend on how the build went; what says when and where is left out."""
    patterns = (
        "shards/**/*",
        "index/**/*",
        "survey/*",
        "slides/*",
        "outcomes.parquet",
        "stain.parquet",
        "manifest.yaml",
    )
    return {
        str(path.relative_to(out)): path.read_bytes()
        for pattern in patterns
        for path in sorted(out.glob(pattern))
        if path.is_file()
    }
