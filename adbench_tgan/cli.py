"""The command ``adbench``: thin, and quick to start, since torch is imported only by the commands that use it."""

from __future__ import annotations

import json
import os
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, NoReturn

import typer

from adbench_tgan.errors import AdbenchError
from adbench_tgan.hooks import one_line
from adbench_tgan.options import (
    Categories,
    Data,
    DataRoot,
    Device,
    Json,
    Precision,
    Preset,
    Protocol,
    Seeds,
    Set,
    complete,
    interruptible,
    registry,
    request_of,
    root,
    split,
    tasks_of,
)

if TYPE_CHECKING:
    from rich.console import Console


SHOWN = "detector category seed epochs clean batch_statistics class_sorted as_published published optimism"
KINDS = ("detectors", "datasets", "protocols", "metrics", "executors")
DETECTORS = "ganomaly,transgan_dual,pca,mean_image,random"  # two GANs and three anchors

app = typer.Typer(
    name="adbench",
    help="A benchmark of visual anomaly detectors whose every number can be checked.",
    epilog="Every command takes --debug, to show a traceback with an error.",
    no_args_is_help=True,
    pretty_exceptions_enable=False,
    context_settings={"help_option_names": ["-h", "--help"]},
)
data_app = typer.Typer(help="Look at a dataset, or bring it here.", no_args_is_help=True)
app.add_typer(data_app, name="data")


@app.callback(invoke_without_command=True)
def top(version: Annotated[bool, typer.Option("--version", help="Print the version.")] = False) -> None:
    """Take the options that stand before a command."""
    if version:
        from adbench_tgan import __version__

        print(f"adbench-tgan {__version__}")
        raise typer.Exit


@app.command()
def run(
    detectors: Annotated[
        str, typer.Option(help="Names with commas between, or all.", autocompletion=complete("detector"))
    ] = DETECTORS,
    data: Data = "digits",
    data_root: DataRoot = None,
    protocol: Protocol = None,
    categories: Categories = None,
    seeds: Seeds = "0",
    preset: Preset = None,
    set_: Set = None,
    device: Device = "auto",
    precision: Precision = "fp32",
    executor: Annotated[
        str, typer.Option(help="How jobs are run.", autocompletion=complete("executor", several=False))
    ] = "local",
    out: Annotated[Path, typer.Option(help="Folder of the results.")] = Path("runs"),
    no_timing: Annotated[bool, typer.Option("--no-timing", help="Leave the time columns empty.")] = False,
    save_models: Annotated[bool, typer.Option("--save-models", help="Keep each job's model.")] = False,
) -> None:
    """Train and score detectors, and print the leaderboard. What is finished already is not run again."""
    from rich.console import Console

    from adbench_tgan.benchmark import benchmark
    from adbench_tgan.progress import TerminalReporter
    from adbench_tgan.runner import Settings
    from adbench_tgan.views import leaderboard_views

    found = registry()
    request = request_of(
        found, detectors, data, data_root, protocol, categories, seeds, preset, set_, precision
    )
    settings = Settings(device=device, timing=not no_timing, save_models=save_models)
    with TerminalReporter(Console(stderr=True)) as reporter, interruptible(reporter.say, out):
        outcome = benchmark(request, settings, found, reporter, out, executor)
    if outcome.ran == 0:
        print(f"nothing was run: all {len(outcome.results)} jobs are finished in {out}")
    for view in leaderboard_views(outcome.leaderboard, f"{data}, {outcome.results[0].job.protocol}"):
        wide_console().print(view)
    print(f"{out / 'results.csv'} and {out / 'leaderboard.csv'} hold the details")
    for result in outcome.failed:
        warn(f"failed: {result.job}: {result.error}")
    raise typer.Exit(1 if outcome.failed else 0)


@app.command()
def audit(
    detectors: Annotated[
        str, typer.Option(help="Names with commas between.", autocompletion=complete("detector"))
    ] = "ganomaly",
    data: Data = "digits",
    data_root: DataRoot = None,
    protocol: Protocol = None,
    categories: Categories = None,
    seeds: Seeds = "0",
    preset: Preset = None,
    set_: Set = None,
    device: Device = "auto",
    precision: Precision = "fp32",
    out: Annotated[Path, typer.Option(help="Folder of the audits.")] = Path("audits"),
    published: Annotated[Path, typer.Option(help="Table of what papers print.")] = Path(
        "leaderboards/published_numbers.csv"
    ),
) -> None:
    """Train once, score each epoch as it should be and as it was published, and show the steps between."""
    from rich.console import Console

    from adbench_tgan.audits import run_audits
    from adbench_tgan.progress import TerminalReporter
    from adbench_tgan.runner import Settings
    from adbench_tgan.views import records_view

    found = registry()
    request = request_of(
        found, detectors, data, data_root, protocol, categories, seeds, preset, set_, precision
    )
    with TerminalReporter(Console(stderr=True)) as reporter, interruptible(reporter.say, out):
        table, failed = run_audits(request, Settings(device=device), found, reporter, out, published)
    shown = table[SHOWN.split()].astype(object)
    lines = shown.where(shown.notna(), "")  # what no paper printed stays empty
    records = [{str(name): value for name, value in line.items()} for _, line in lines.iterrows()]
    wide_console().print(records_view(records, f"AUROC, {data}, {request.protocol or 'its own protocol'}"))
    print(f"{out / 'audit.csv'} holds the details, {out / 'curves'} a picture of each")
    raise typer.Exit(1 if failed else 0)


@app.command("list")
def list_(
    kind: Annotated[
        str, typer.Argument(help=", ".join(KINDS) + ".", autocompletion=lambda: list(KINDS))
    ] = "detectors",
    as_json: Json = False,
) -> None:
    """List what is registered."""
    from dataclasses import asdict

    from adbench_tgan.errors import unknown

    if kind not in KINDS:
        raise unknown("kind", kind, KINDS)
    found = registry()
    offers = found.offers(kind.removesuffix("s"))
    records = [asdict(record) | {"plugin": origin} for record, origin in offers]
    shown = (
        "name",
        "family",
        "supervision",
        "pretrained",
        "layout",
        "protocol",
        "level",
        "version",
        "summary",
    )
    show(records, as_json, kind, only=(*shown, "paper", "plugin"))
    for plugin in found.plugins():
        if plugin.error:
            warn(f"plugin {plugin.origin} is broken: {plugin.error}")


@app.command()
def plugins(as_json: Json = False) -> None:
    """List the installed plugins, broken ones too."""
    records = [
        {
            "origin": plugin.origin,
            "version": plugin.version,
            "status": plugin.status,
            "hooks": list(plugin.hooks),
            "error": plugin.error,
        }
        for plugin in registry().plugins()
    ]
    show(records, as_json, "plugins")


@app.command()
def info(
    detector: Annotated[str, typer.Argument(autocompletion=complete("detector", several=False))],
    data: Data = "cifar10",
    preset: Annotated[str, typer.Option(help="paper, quick or tuned.")] = "paper",
    set_: Set = None,
    as_json: Json = False,
) -> None:
    """Show a detector: its paper, its settings with help, and its parameters on a dataset's images."""
    from adbench_tgan.describe import describe_detector
    from adbench_tgan.jobs import Request, check_overrides, entry

    found = registry()
    check_overrides(Request(detectors=[detector], overrides=set_ or ()), found)
    each = entry(found, detector, preset, set_ or (), warn)
    card = describe_detector(each, found.find("dataset", data))
    if as_json:
        print(json.dumps(card, indent=1))
        return
    config, counts = card.pop("config"), card.pop("parameters")
    show([{"": key, " ": value} for key, value in card.items()], as_json, each.info.name)
    show([{"setting": key} | fields for key, fields in config.items()], as_json, "settings (--set)")
    rows = [{"network": key, "parameters": f"{count:,}"} for key, count in counts.items()]
    show(rows, as_json, f"parameters on {data}")


@data_app.command("info")
def data_info(
    name: Annotated[str, typer.Argument(autocompletion=complete("dataset", several=False))],
    data_root: DataRoot = None,
    protocol: Protocol = None,
    categories: Categories = None,
    as_json: Json = False,
) -> None:
    """Print a dataset's passport: sizes, prevalence, chance levels, fingerprint of each category."""
    from adbench_tgan.describe import passports

    tasks = tasks_of(name, data_root, protocol, fetch=False)
    chosen = split(categories, "--categories") if categories is not None else tasks.categories
    cards = passports(tasks, tuple(chosen))
    if as_json:
        print(json.dumps(cards, indent=1))
        return
    for key in ("summary", "source", "licence"):
        print(f"{key}: {cards['dataset'][key] or 'not stated'}")
    print(
        f"protocol: {cards['protocol']['name']} version {cards['protocol']['version']}: {cards['protocol']['summary']}"
    )
    print(f"found: {cards['note']}")
    good = [card for card in cards["categories"] if "error" not in card]
    show(good, as_json, name)
    for card in cards["categories"]:
        if "error" in card:
            warn(f"{card['category']}: {card['error']}")
    raise typer.Exit(0 if len(good) == len(cards["categories"]) else 1)


@data_app.command("fetch")
def data_fetch(
    name: Annotated[str, typer.Argument(autocompletion=complete("dataset", several=False))],
    data_root: DataRoot = None,
) -> None:
    """Download a dataset, unless it is here already, and verify it."""
    tasks = tasks_of(name, data_root, None, fetch=True)
    print(f"{name} is in {root(data_root)}: {tasks.note}")


@app.command()
def predict(
    job_folder: Annotated[Path, typer.Argument(help="Folder of a job run with --save-models.")],
    image: Annotated[list[Path], typer.Argument(help="Image files.")],
    heatmap: Annotated[
        Path | None, typer.Option(help="Write image, reconstruction and map to this PNG.")
    ] = None,
    device: Device = "auto",
    as_json: Json = False,
) -> None:
    """Score new images with a finished job's model."""
    from adbench_tgan import predict as saved
    from adbench_tgan.benchmark import usable

    detector, result = saved.load_detector(job_folder, registry(), usable(device))
    assert result.shape is not None
    images = saved.read_images(image, result.shape)
    found = saved.predict(detector, result, image, images)
    records = [
        {"image": str(p.path), "score": p.score, "threshold": p.threshold, "anomalous": p.anomalous}
        for p in found
    ]
    show(records, as_json, f"{result.job}")
    if heatmap is not None:
        saved.draw(detector, found, images, heatmap)
        if not as_json:
            print(f"wrote {heatmap}")


def show(records: list[dict[str, Any]], as_json: bool, title: str, only: tuple[str, ...] = ()) -> None:
    """Print records as JSON, or as a table of the columns `only`."""
    if as_json:
        print(json.dumps(records, indent=1))
        return
    from adbench_tgan.views import records_view

    if only:
        records = [{key: record[key] for key in only if key in record} for record in records]
    wide_console().print(records_view(records, title))


def wide_console() -> Console:
    """The standard output; no table is folded for a file or a pipe."""
    from rich.console import Console

    return Console(width=None if sys.stdout.isatty() else 200)


def warn(message: str) -> None:
    """Print a line to the standard error stream."""
    print(message, file=sys.stderr)


def fail(message: str, status: int = 2) -> NoReturn:
    """End with one line that says what is wrong."""
    warn(f"adbench: {message}")
    raise SystemExit(status)


def add_plugin_commands(words: list[str]) -> None:
    """Offer the plugins' commands beside our own; the one that is called is imported."""
    ours = set(typer.main.get_group(app).commands)
    asked = next((word for word in words if not word.startswith("-")), None)
    if asked in ours or "--version" in words:
        return
    found = registry()
    for spec, origin in found.offers("command"):
        if spec.name in ours:
            warn(f"command {spec.name!r} of plugin {origin} is left out: adbench has one of that name")
        elif spec.name == asked:
            app.command(spec.name, help=spec.summary)(found.load("command", spec.name))
        else:
            app.command(spec.name, help=spec.summary)(lambda: None)


def main() -> None:
    """Run the command line; every error is one line, with a traceback only on ``--debug``."""
    # Threads of small networks wait for each other all the time. On a core that another program uses, waiting by
    # spinning makes training many times slower; a short spin costs next to nothing elsewhere.
    os.environ.setdefault("GOMP_SPINCOUNT", "1000")
    debug = "--debug" in sys.argv
    sys.argv = [word for word in sys.argv if word != "--debug"]
    try:
        try:
            add_plugin_commands(sys.argv[1:])
            app()
        finally:
            print(end="", flush=True)  # a reader that is gone shows here, not at the interpreter's end
    except BrokenPipeError:  # the reader, such as `head`, has seen enough
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
    except MemoryError:
        fail("out of memory; use smaller images or fewer detectors", 1)
    except Exception as error:
        if debug:
            raise
        if isinstance(error, AdbenchError):
            fail(str(error), error.status)
        fail(f"{one_line(error)}; a mistake in adbench or in a plugin: --debug shows where", 1)


if __name__ == "__main__":
    main()
