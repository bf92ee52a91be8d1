"""The command line.

Exit codes: 0 done; 1 something failed, checkpoints are kept; 2 wrong configuration, shards or run, or a run that
diverged: a person has to act; 75 asked to stop by SIGTERM or SIGINT, the same command goes on.
"""

from __future__ import annotations

import logging
import os
import sys
from pathlib import Path
from typing import Annotated, NoReturn

import typer

from exaone_train.commands import collapse, encoder, probe
from exaone_train.errors import TrainError

# Everything heavy is imported by the command that needs it: `--help` answers at once.

STOPPED = 75
"""EX_TEMPFAIL of sysexits.h: try again."""

app = typer.Typer(
    name="exaone-train",
    help="Self-supervised pre-training on prebuilt shards of histology patches.",
    no_args_is_help=True,
    add_completion=False,
    rich_markup_mode=None,
    pretty_exceptions_enable=False,
)


@app.callback()
def _options(
    debug: Annotated[bool, typer.Option("--debug", help="Show the traceback of an error; may stand anywhere.")] = False,
) -> None:
    del debug  # has been seen to by now


@app.command()
def fit(
    config: Annotated[Path, typer.Argument(help="YAML, such as configs/vit_b16.yaml.")],
    *,
    shards: Annotated[list[str], typer.Option("--shards", help="Data set: a directory or an fsspec URL; several.")],
    out: Annotated[
        Path, typer.Option("--out", help="Folder of the run: checkpoints and log; one that exists goes on.")
    ],
    settings: Annotated[
        list[str] | None, typer.Option("--set", help="One setting, such as max_steps=20 or data.batch_size=512.")
    ] = None,
) -> None:
    """Train an encoder by DINO; killed and started again, it goes on. For many devices, start it by `torchrun`."""
    from exaone_train.config_file import load_config

    chosen = load_config(config, settings or ())
    from exaone_train.fit import fit as run

    logging.getLogger("lightning_fabric").setLevel(logging.WARNING)  # which it sets when it is imported
    if not run(chosen, shards, out):
        _say("stopped as asked; the same command goes on")
        raise typer.Exit(STOPPED)
    _say(f"all {chosen.run.max_steps:,} steps are done: {out}")


for commands in (encoder, collapse, probe):
    commands.register(app)


def main() -> NoReturn:
    """Run a command; an error is one sentence on standard error."""
    logging.basicConfig(
        format="%(message)s", level=logging.WARNING if int(os.environ.get("RANK", "0")) else logging.INFO
    )
    words = [word for word in sys.argv[1:] if word != "--debug"]
    debug = len(words) < len(sys.argv) - 1
    try:
        sys.exit(app(words, standalone_mode=False))
    except (TrainError, OSError) as error:
        if debug:
            raise
        _say(str(error))
        sys.exit(2 if isinstance(error, TrainError) else 1)
    except Exception as error:
        # Click's own errors (a missing option, say) know how to show themselves; all others are defects.
        show = getattr(error, "show", None)
        if show is None:
            raise
        show()
        sys.exit(2)


def _say(sentence: str) -> None:
    sys.stderr.write(f"exaone-train: {sentence}\n")


if __name__ == "__main__":
    main()
