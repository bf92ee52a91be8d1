"""The command line, run as a person runs it, and what came of it."""

from __future__ import annotations

import contextlib
import io
import os
import signal
import subprocess
import sys
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from unittest import mock

from exaone_prep.cli import main

TIMEOUT_S = 240
"""Far beyond what a small build takes, also on a busy machine: only what hangs runs into it."""


@dataclass(frozen=True, kw_only=True)
class Ended:
    """A command that ended.

    Attributes:
        code: Its exit code.
        out: Standard output.
        err: Standard error.
    """

    code: int
    out: str
    err: str

    def succeeded(self) -> Ended:
        """Itself, if the command was done."""
        assert self.code == 0, f"exit code {self.code}: {self.err or self.out}"
        return self

    def sentence(self, code: int) -> str:
        """The one sentence that a failed command ends with; beside warnings and waits there is nothing else.

        Args:
            code: The exit code it must have.
        """
        assert self.code == code, f"exit code {self.code}: {self.err or self.out}"
        assert "Traceback" not in self.err
        beside = ("warning: ", "Compiling ")
        lines = [line for line in self.err.splitlines() if line.strip() and not line.startswith(beside)]
        assert len(lines) == 1, self.err
        sentence = lines[0].removeprefix("exaone-prep: ")
        assert sentence != lines[0], self.err
        assert sentence.endswith((".", "?")), sentence
        return sentence


def run(
    *words: object,
    cwd: Path | None = None,
    variables: Mapping[str, str] | None = None,
    before: Callable[[], None] | None = None,
) -> Ended:
    """Run `exaone-prep` in a process of its own.

    Args:
        words: Of the command line.
        cwd: Where it runs.
        variables: Laid over the environment.
        before: Called in the child before the program starts.
    """
    done = subprocess.run(
        [sys.executable, "-m", "exaone_prep.cli", *map(str, words)],
        check=False,
        cwd=cwd,
        env={**os.environ, **(variables or {})},
        preexec_fn=before,
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        timeout=TIMEOUT_S,
    )
    return Ended(code=done.returncode, out=done.stdout, err=done.stderr)


def run_here(*words: object) -> Ended:
    """Run `exaone-prep` in this process, which saves the imports; its workers are processes as always."""
    out, err = io.StringIO(), io.StringIO()
    handlers: dict[signal.Signals, Any] = {s: signal.getsignal(s) for s in (signal.SIGINT, signal.SIGTERM)}
    code: object = None
    with (
        mock.patch.object(sys, "argv", ["exaone-prep", *map(str, words)]),
        contextlib.redirect_stdout(out),
        contextlib.redirect_stderr(err),
    ):
        try:
            main()
        except SystemExit as ending:
            code = ending.code
        finally:
            for number, handler in handlers.items():
                signal.signal(number, handler)
    assert code is None or isinstance(code, int)
    return Ended(code=code or 0, out=out.getvalue(), err=err.getvalue())
