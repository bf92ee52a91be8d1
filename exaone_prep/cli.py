"""The command line.

Exit codes: 0 done; 1 something failed, what is committed is kept; 2 wrong manifest, option or directory; 3 verification
found damage; 4 another environment made other bytes; 130 interrupted.
"""

from __future__ import annotations

import contextlib
import json
import os
import signal
import sys
import threading
from pathlib import Path
from types import FrameType
from typing import TYPE_CHECKING, Annotated, NoReturn

import typer

from exaone_prep import __version__
from exaone_prep.budget import calm_libraries, default_workers
from exaone_prep.errors import ManifestError, PrepError

# Everything heavy is imported by the command that needs it: `--help` answers at once.
if TYPE_CHECKING:
    from exaone_prep.manifest import Manifest

app = typer.Typer(
    name="exaone-prep",
    help="From whole-slide images to verified, mixed, stain-normalised WebDataset shards.",
    no_args_is_help=True,
    add_completion=False,
    rich_markup_mode=None,
    pretty_exceptions_enable=False,
)

WORKERS = default_workers()

INTERRUPTED = 130
END_WITHIN_S = 25.0
"""A command that was interrupted and still cleans up after so long is cut off; the next one sweeps what it left."""

DatasetArgument = Annotated[str, typer.Argument(help="Data set directory: a local path or an fsspec URL.")]
ManifestArgument = Annotated[
    str | None, typer.Argument(help="The manifest, a path or an fsspec URL; see `exaone-prep schema`.")
]
SlidesOption = Annotated[
    list[str] | None, typer.Option("--slides", help="Instead of a manifest: glob, folder or file.")
]
SetOption = Annotated[
    list[str] | None, typer.Option("--set", help="One setting of the manifest, such as `stain.fit=patch`.")
]
WorkersOption = Annotated[
    int, typer.Option("--workers", min=1, help="Processes at work; by default as cores and free memory allow.")
]
JsonOption = Annotated[bool, typer.Option("--json", help="Print one JSON object instead of text.")]


def _version(shown: bool) -> None:
    if shown:
        typer.echo(__version__)
        raise typer.Exit


@app.callback()
def _options(
    version: Annotated[
        bool, typer.Option("--version", callback=_version, is_eager=True, help="Print the version and end.")
    ] = False,
    debug: Annotated[bool, typer.Option("--debug", help="Show the traceback of an error; may stand anywhere.")] = False,
) -> None:
    del version, debug  # both have been seen to by now


@app.command()
def build(
    manifest: ManifestArgument = None,
    *,
    out: Annotated[str, typer.Option("--out", help="Data set directory to create or to go on with.")],
    slides: SlidesOption = None,
    settings: SetOption = None,
    workers: WorkersOption = WORKERS,
    scratch: Annotated[Path | None, typer.Option("--scratch", help="Local working space.")] = None,
    scratch_limit: Annotated[
        str | None, typer.Option("--scratch-limit", help="Most bytes there, such as 200GB; a group waits for room.")
    ] = None,
    after: Annotated[
        str | None, typer.Option("--after", help="Build only slides that this data set has not done.")
    ] = None,
    overrides: Annotated[
        str | None, typer.Option("--overrides", help="Table of slide_id and mpp or allow_non_he: for these slides.")
    ] = None,
    dask: Annotated[
        str | None, typer.Option("--dask", help="Build on a Dask cluster: tcp://host:port of its scheduler, or local.")
    ] = None,
) -> None:
    """Build a data set; killed and started again, it goes on and ends with the same bytes."""
    from exaone_prep.site import open_site

    chosen, base = _manifest(manifest, slides, settings)
    # Workers take a second to import what slides need, and so does the next line but one.
    with open_site(dask=dask, workers=workers, scratch=scratch, scratch_limit=scratch_limit) as site:
        from exaone_prep.commands.build import build_command

        build_command(chosen, base=base, out=out, site=site, after=after, overrides=overrides)


@app.command()
def verify(
    dataset: DatasetArgument,
    quick: Annotated[bool, typer.Option("--quick", help="Sizes only.")] = False,
    deep: Annotated[bool, typer.Option("--deep", help="Decode every image as well.")] = False,
    workers: WorkersOption = WORKERS,
    as_json: JsonOption = False,
) -> None:
    """Check a data set against its ledger, its index and its digest."""
    from exaone_prep.commands.verify import verify_command

    if quick and deep:
        raise ManifestError("Choose --quick or --deep.")
    verify_command(dataset, "quick" if quick else "deep" if deep else "full", workers=workers, as_json=as_json)


@app.command()
def status(
    dataset: DatasetArgument,
    as_json: JsonOption = False,
    watch: Annotated[bool, typer.Option("--watch", help="Show it until it is complete.")] = False,
) -> None:
    """Say how far a data set is, from its ledger."""
    if watch and as_json:
        raise ManifestError("Choose --watch or --json.")
    if watch:
        from exaone_prep.commands.watch import watch_command

        with contextlib.suppress(_Interrupted):  # to look no longer is no interruption of anything
            watch_command(dataset)
        return
    from exaone_prep.commands.status import status_command

    status_command(dataset, as_json=as_json)


@app.command()
def dashboard(
    datasets: Annotated[list[str], typer.Argument(help="Data set directories; a repair after what it repairs.")],
    port: Annotated[int, typer.Option("--port", min=0, max=65535, help="0: any that is free.")] = 8050,
    host: Annotated[str, typer.Option("--host", help="Address to listen on.")] = "127.0.0.1",
    token: Annotated[
        str | None,
        typer.Option(
            "--token", envvar="EXAONE_PREP_DASHBOARD_TOKEN", show_envvar=True, help="That a visitor must have."
        ),
    ] = None,
) -> None:
    """Show data sets on a web page, while they are built and after, read-only."""
    from exaone_prep.commands.dashboard import dashboard_command

    with contextlib.suppress(_Interrupted):  # to serve no longer is no interruption of anything
        dashboard_command(datasets, host=host, port=port, token=token or None)


@app.command()
def pause(dataset: DatasetArgument) -> None:
    """Let all builders of a data set finish their group, and wait."""
    from exaone_prep.commands.pause import pause_command

    pause_command(dataset)


@app.command()
def resume(dataset: DatasetArgument) -> None:
    """Let the builders of a paused data set go on."""
    from exaone_prep.commands.pause import resume_command

    resume_command(dataset)


@app.command()
def migrate(dataset: DatasetArgument) -> None:
    """Bring the metadata of a complete data set to the present format version; shards stay as they are."""
    from exaone_prep.migrate import migrate as run_steps
    from exaone_prep.storage import open_storage

    found, reached = run_steps(open_storage(dataset))
    if found == reached:
        typer.echo(f"{dataset} has format version {found}, the present one: there is nothing to do.")
    else:
        typer.echo(f"{dataset}: from format version {found} to {reached}")


@app.command()
def inspect(
    slide: Annotated[Path, typer.Argument(help="One slide.")],
    settings: SetOption = None,
    picture: Annotated[Path | None, typer.Option("--picture", help="PNG to write: tissue and planned patches.")] = None,
    stain_picture: Annotated[
        Path | None, typer.Option("--stain-picture", help="PNG to write: the stain and patches before and after.")
    ] = None,
    as_json: JsonOption = False,
) -> None:
    """Show what a build would make of one slide: mpp and its source, level, tissue, stain; with two pictures."""
    from exaone_prep.commands.inspect import inspect_command

    inspect_command(slide, _settings(settings), picture=picture, stain_picture=stain_picture, as_json=as_json)


@app.command()
def estimate(
    manifest: ManifestArgument = None,
    slides: SlidesOption = None,
    settings: SetOption = None,
    sample: Annotated[int, typer.Option("--sample", min=1, help="Slides to survey.")] = 8,
    workers: WorkersOption = WORKERS,
    prices: Annotated[
        Path | None, typer.Option("--prices", help="YAML of prices; adds what a build will cost.")
    ] = None,
    as_json: JsonOption = False,
) -> None:
    """Survey a sample of the slides and say what a build will need, and cost."""
    from exaone_prep.commands.estimate import estimate_command

    chosen, base = _manifest(manifest, slides, settings)
    estimate_command(chosen, base=base, sample=sample, workers=workers, prices=prices, as_json=as_json)


@app.command()
def sheet(
    dataset: DatasetArgument,
    out: Annotated[Path, typer.Option("--out", help="PNG to write.")] = Path("contact-sheet.png"),
    slides: Annotated[int, typer.Option("--slides", min=1, help="Slides to show.")] = 6,
) -> None:
    """Draw a contact sheet: slides with their kept patches, patches before and after normalisation."""
    from exaone_prep.dataset import open_dataset
    from exaone_prep.sheet import contact_sheet

    picture = contact_sheet(open_dataset(dataset), slides=slides)
    if picture is None:
        raise PrepError(f"{dataset} holds no sample yet, so there is nothing to show.")
    picture.save(out, "PNG")
    typer.echo(f"contact sheet: {out}")


@app.command("stain-reference")
def stain_reference(
    images: Annotated[list[Path], typer.Argument(help="Target images (PNG, JPEG, TIFF); one fit over all of them.")],
    out: Annotated[Path, typer.Option("--out", help="JSON to write; `stain.reference` of a manifest takes it.")],
    name: Annotated[str, typer.Option("--name", help="For people.")] = "own",
) -> None:
    """Fit the stain of target images, to normalise to."""
    from exaone_prep.commands.reference import reference_command

    reference_command(images, name=name, out=out)


@app.command()
def schema() -> None:
    """Print the JSON Schema of the manifest."""
    from exaone_prep.manifest import json_schema

    typer.echo(json.dumps(json_schema(), indent=2))


@app.command()
def phantom(
    out: Annotated[Path, typer.Option("--out", help="Folder to write to.")],
    slides: Annotated[int, typer.Option("--slides", min=1)] = 6,
    labs: Annotated[int, typer.Option("--labs", min=1)] = 3,
    seed: Annotated[int, typer.Option("--seed", min=0)] = 0,
    workers: Annotated[int, typer.Option("--workers", min=1, help="Processes that paint.")] = 1,
) -> None:
    """Generate H&E-like slides with known stains, and a manifest that builds them."""
    from exaone_prep.phantom import PhantomSettings, write_phantoms

    written = write_phantoms(out, PhantomSettings(slides=slides, labs=labs, seed=seed), workers=workers)
    typer.echo(f"{len(written)} slides in {out}; build them with: exaone-prep build {out}/data_manifest.yaml --out DIR")


def _manifest(location: str | None, slides: list[str] | None, settings: list[str] | None) -> tuple[Manifest, Path]:
    from exaone_prep.manifest import parse_manifest
    from exaone_prep.manifest_file import open_manifest

    if (location is None) == (not slides):
        raise ManifestError("Give a manifest, or slides by --slides; one of the two.")
    if location is not None:
        return open_manifest(location, _settings(settings))
    document = {"name": "slides", "cohorts": [{"name": "slides", "slides": slides}]}
    return parse_manifest(document, _settings(settings), where="--slides"), Path.cwd()


def _settings(given: list[str] | None) -> dict[str, str]:
    settings = {}
    for text in given or []:
        name, equals, value = text.partition("=")
        if not equals or not name:
            raise ManifestError(f"--set {text}: write it as name=value, such as stain.fit=patch.")
        settings[name.strip()] = value
    return settings


def main() -> NoReturn:
    """Run a command; an error is one sentence on standard error."""
    calm_libraries(os.environ)
    signal.signal(signal.SIGINT, _interrupt)
    signal.signal(signal.SIGTERM, _interrupt)
    words = [word for word in sys.argv[1:] if word != "--debug"]
    debug = len(words) < len(sys.argv) - 1
    try:
        sys.exit(app(words, standalone_mode=False))
    except _Interrupted:
        _say("interrupted; what is committed is kept, the same command goes on")
        sys.exit(INTERRUPTED)
    except (PrepError, OSError) as error:
        if debug:
            raise
        from exaone_prep.build import sentence_of

        _say(sentence_of(error))
        sys.exit(error.exit_code if isinstance(error, PrepError) else 1)
    except Exception as error:
        # Click's own errors (a missing option, say) know how to show themselves; all others are defects.
        show = getattr(error, "show", None)
        if show is None:
            raise
        show()
        sys.exit(2)


def _say(sentence: str) -> None:
    sys.stderr.write(f"exaone-prep: {sentence}\n")


class _Interrupted(BaseException):
    """SIGINT or SIGTERM. Not KeyboardInterrupt, which Click takes for a successful end."""


def _interrupt(_number: int, _frame: FrameType | None) -> NoReturn:
    # A second Ctrl-C, or the SIGTERM that often comes with it, must not cut short what the first began to clean up.
    for number in (signal.SIGINT, signal.SIGTERM):
        signal.signal(number, signal.SIG_IGN)
    cut_off = threading.Timer(END_WITHIN_S, os._exit, (INTERRUPTED,))
    cut_off.daemon = True
    cut_off.start()
    raise _Interrupted


if __name__ == "__main__":
    main()
