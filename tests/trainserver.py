"""Forks into a process that runs `exaone-train` for each line on its standard input, a JSON list of words.

It answers by the number of the process, and by its exit code (below 0: the signal that killed it) when it has ended;
standard error goes to the file that is its argument.
"""

from __future__ import annotations

import json
import os
import sys

import exaone_train.fit
from exaone_train.cli import main


def serve(errors: str) -> None:
    """Serve until standard input ends."""
    for line in sys.stdin:
        pid = os.fork()
        if pid == 0:
            descriptor = os.open(errors, os.O_WRONLY | os.O_CREAT | os.O_TRUNC)
            os.dup2(descriptor, 1)
            os.dup2(descriptor, 2)
            sys.argv = ["exaone-train", *json.loads(line)]
            try:
                main()
            except SystemExit as end:
                os._exit(int(end.code or 0))  # taking all that is imported apart takes a second
        sys.stdout.write(f"{pid}\n")
        sys.stdout.flush()
        sys.stdout.write(f"{os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1])}\n")
        sys.stdout.flush()


if __name__ == "__main__":
    assert exaone_train.fit  # imported, so that forks need not
    serve(sys.argv[1])
