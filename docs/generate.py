"""Writes into the pages what the code knows: ``python docs/generate.py``, and commit what it changes.

Between ``<!-- generated: NAME -->`` and ``<!-- end -->`` stands what `GENERATED` has under that name: the same text on
every machine. mkdocs calls this file too (see ``mkdocs.yml``), for formulas and to refuse pages that are not current. No
torch is needed: records are read from the plugins' modules, and what stands in modules that import torch is read from
their syntax trees.
"""

from __future__ import annotations

import ast
import html
import importlib
import inspect
import re
import sys
import tomllib
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import MISSING, fields, is_dataclass
from functools import partial
from pathlib import Path
from typing import Any, NoReturn

ROOT = Path(__file__).parent.parent
ROOMS = (ROOT, ROOT / "plugins", ROOT / "baselines")  # where the wheel's packages lie

MARKED = re.compile(r"(<!-- generated: (\S+) -->\n).*?(<!-- end -->)", re.S)
TITLE = re.compile(r"^# .*\n", re.M)
LINK = re.compile(r"\[([^\]]+)\]\(((?!https?:)[^)]+)\)")
COMMENTED = re.compile(r"(?m)^((?:    # .*\n)*)    (\w+): [^#\n]*(?:# (.*))?$")  # a field of a dataclass
FORMULA = re.compile(r"^```math\n(.*?)\n```$", re.S | re.M)
GIVEN = {"adbench_datasets": ("Dataset", "Samples"), "adbench_protocols": ("Cut",)}  # what targets return
OUTSIDE = re.compile(r"<(?:script|link|img|iframe|source)\b[^>]*(?:src|href)=\"?(?:https?:)?//[^>]*>")


def main() -> None:
    """Write anew the pages that are not current."""
    for path in (ROOT / "docs").glob("*.md"):
        old = path.read_text(encoding="utf-8")
        if (new := complete(old)) != old:
            path.write_text(new, encoding="utf-8")


def on_page_markdown(markdown: str, page: Any, **_: Any) -> str:
    """Called by mkdocs for every page."""
    if complete(markdown) != markdown:
        refuse(f"{page.file.src_uri} is not current: python docs/generate.py writes it anew")
    return with_formulas(markdown)


def on_post_page(output: str, page: Any, **_: Any) -> str:
    """Called by mkdocs with every finished page: none may load anything from elsewhere."""
    if found := loaded_from_elsewhere(output):
        refuse(f"{page.file.src_uri} loads from elsewhere: {found[0]}")
    return output


def refuse(message: str) -> NoReturn:
    """End the build."""
    from mkdocs.exceptions import PluginError

    raise PluginError(message)


def loaded_from_elsewhere(page: str) -> list[str]:
    """The tags of a finished page by which a browser would load from another host; plain links are none."""
    return OUTSIDE.findall(page)


def complete(markdown: str) -> str:
    """A page with what is generated between its marks."""
    sys.path += [str(room) for room in ROOMS if str(room) not in sys.path]  # where nothing is installed
    return MARKED.sub(lambda mark: f"{mark[1]}\n{GENERATED[mark[2]]().strip()}\n\n{mark[3]}", markdown)


def included(path: str) -> str:
    """What stands under the last title of another page; the site has no more of its links than those to its pages."""

    def link(found: re.Match[str]) -> str:
        page = (ROOT / path).parent.joinpath(found[2]).resolve()
        return f"[{found[1]}]({page.name})" if page.parent == ROOT / "docs" else found[1]

    return LINK.sub(link, TITLE.split((ROOT / path).read_text(encoding="utf-8"))[-1])


def with_formulas(markdown: str) -> str:
    """LaTeX in blocks of ``math`` becomes MathML, which browsers show by themselves."""
    if not FORMULA.search(markdown):
        return markdown
    from latex2mathml.converter import convert

    return FORMULA.sub(
        lambda block: f"<div class='formula'>{convert(block[1], display='block')}</div>", markdown
    )


# -- what the plugins in this repository offer


def offered(kind: str) -> list[Any]:
    """The records that this repository's own plugins offer, by name; what else is installed here is left out."""
    points = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]["entry-points"]["adbench"]
    modules = [importlib.import_module(module) for module in points.values()]
    hooks = [getattr(module, f"adbench_{kind}s", None) for module in modules]
    return sorted((record for hook in hooks if hook for record in hook()), key=lambda record: record.name)


def detectors() -> str:
    """A table of the detectors, and of each what its file says of itself."""
    lines = [
        (
            f"[`{one.name}`](#{one.name})",
            one.family,
            one.supervision,
            "yes" if one.pretrained else "no",
            one.version,
        )
        for one in offered("detector")
    ]
    text = table(("name", "family", "supervision", "pretrained", "version"), lines)
    return text + "".join(card(one) for one in offered("detector"))


def card(detector: Any) -> str:
    """A detector's section: its paper, and what its file, or where several share a file its class, says of it.

    The header of a file is where a method states how it differs from the authors' code.
    """
    module, _, name = detector.target.partition(":")
    tree = ast.parse(source_of(module))
    (own,) = [node for node in tree.body if isinstance(node, ast.ClassDef) and node.name == name]
    text = ast.get_docstring(own if detector.family == "anchor" else tree) or ""
    paper = f"Paper: {linked(detector.paper)}\n\n" if detector.paper else ""
    extras = ", ".join(f"`{extra}`" for extra in detector.extras) or "none"
    return (
        f"\n\n### `{detector.name}`\n\n{paper}Beyond scores: {extras}. "
        f"Settings: `adbench info {detector.name}`.\n\n{as_markdown(text)}\n"
    )


def source_of(module: str) -> str:
    """The text of a module, which is not imported."""
    (path,) = [path for room in ROOMS if (path := room / (module.replace(".", "/") + ".py")).exists()]
    return path.read_text(encoding="utf-8")


def as_markdown(docstring: str) -> str:
    """Paragraphs as they are; numbered lists get the blank line and the depth that Markdown wants."""
    text = re.sub(r"``(.+?)``", r"`\1`", docstring)
    text = "`".join(
        part if i % 2 else html.escape(part, quote=False) for i, part in enumerate(text.split("`"))
    )
    text = re.sub(r"(?m)^(?=1[.)] )", "\n", text)
    text = re.sub(r"(?m)^(\d+)[.)] ", r"\1. ", text)
    text = re.sub(r"(?m)^ {3,4}(?=\S)", "    ", text)
    return linked(re.sub(r"(?<=\w)\*(?=\w)|(?<= )\*(?= )", r"\\*", text))


def linked(text: str) -> str:
    """Bare addresses as links."""
    return re.sub(r"https?://[^\s)<>]*[^\s)<>.,;:]", r"<\g<0>>", text)


def datasets() -> str:
    """A table of the datasets."""
    lines = [
        (f"`{one.name}`", one.summary, f"`{one.protocol}`", one.licence or "not stated", linked(one.source))
        for one in offered("dataset")
    ]
    return table(("name", "what", "default protocol", "licence", "source"), lines)


def protocols() -> str:
    """A table of the protocols."""
    lines = [(f"`{one.name}`", one.version, one.layout, one.summary) for one in offered("protocol")]
    return table(("name", "version", "datasets with", "what"), lines)


def metrics() -> str:
    """A table of the metrics."""
    lines = [
        (f"`{one.name}`", one.level, "higher" if one.higher_is_better else "lower", one.summary)
        for one in offered("metric")
    ]
    return table(("name", "of each", "better is", "what"), lines)


def executors() -> str:
    """A table of the ways to run jobs."""
    return table(("name", "what"), [(f"`{one.name}`", one.summary) for one in offered("executor")])


# -- hooks and checks


def hooks() -> str:
    """Each hook with its text, and the record that it returns."""
    from adbench_tgan import hooks as module
    from adbench_tgan.registry import RECORDS

    records = {f"adbench_{kind}s": record for kind, record in RECORDS.items()}
    names = [name for name in vars(module) if name.startswith("adbench_")]
    return "".join(
        hook(name, getattr(module, name), records.get(name)) + "".join(map(given, GIVEN.get(name, ())))
        for name in names
    )


def hook(name: str, function: Any, record: type | None) -> str:
    """A hook's section."""
    words = ", ".join(inspect.signature(function).parameters)
    text = f"\n\n## `{name}({words})`\n\n{as_markdown(inspect.getdoc(function) or '')}\n"
    if record is not None:
        text += (
            f"\nReturns an iterable of `{record.__name__}`. {as_markdown(inspect.getdoc(record) or '')}\n\n"
        )
        text += table(("field", "type", "default", "meaning"), fields_of(record))
    return text


def fields_of(record: type) -> Iterator[tuple[str, ...]]:
    """The fields of a frozen dataclass; their meaning is the comment behind or above each."""
    assert is_dataclass(record)
    comments = comments_of(inspect.getsource(record))
    for one in fields(record):
        default = one.default if one.default_factory is MISSING else one.default_factory()
        shown = "required" if default is MISSING else f"`{default!r}`"
        yield f"`{one.name}`", f"`{one.type}`", shown, as_markdown(comments[one.name])


def comments_of(source: str) -> dict[str, str]:
    """The comment behind or above each field of a class."""
    return {
        name: " ".join(re.sub("(?m)^ *# ", "", above).split()) or behind
        for above, name, behind in COMMENTED.findall(source)
    }


def given(name: str) -> str:
    """The section of a class that targets return, read from the text of its module, which imports torch."""
    source = source_of("adbench_tgan.data.samples")
    nodes = ast.parse(source).body
    (own,) = [node for node in nodes if isinstance(node, ast.ClassDef) and node.name == name]
    short = {  # the module's own names of types, such as Pixels
        ast.unparse(node.targets[0]): ast.unparse(node.value)
        for node in nodes
        if isinstance(node, ast.Assign) and isinstance(node.value, ast.Subscript)
    }
    text = source.splitlines()[own.lineno - 1 : own.end_lineno]
    lines = [
        (f"`{field}`", f"`{re.sub('[A-Z][a-z]+', lambda word: short.get(word[0], word[0]), kind)}`", *others)
        for field, kind, *others in members(own, comments_of("\n".join(text)))
    ]
    about = as_markdown(ast.get_docstring(own) or "")
    return f"\n\n### `{name}`\n\n{about}\n\n" + table(("field", "type", "default", "meaning"), lines)


def members(own: ast.ClassDef, comments: dict[str, str]) -> Iterator[tuple[str, ...]]:
    """The public fields of a dataclass; of a protocol, which alone has bases here, its properties and methods."""
    for node in own.body:
        if isinstance(node, ast.FunctionDef) and own.bases:
            words = "" if node.decorator_list else f"({', '.join(word.arg for word in node.args.args[1:])})"
            meaning = as_markdown(ast.get_docstring(node) or "")
            yield f"{node.name}{words}", ast.unparse(node.returns or node), "required", meaning
        elif isinstance(node, ast.AnnAssign) and not (name := ast.unparse(node.target)).startswith("_"):
            default = f"`{ast.unparse(node.value)}`" if node.value else "required"
            yield name, ast.unparse(node.annotation), default, as_markdown(comments[name])


def checks() -> str:
    """The checks of the conformance suite: their names are their messages."""
    room = ROOT / "adbench_tgan"
    paths = sorted(room.glob("testing/**/*.py"))
    found = [node for path in paths for node in ast.parse(path.read_text()).body if is_check(node)]
    assert found, "no check was found in adbench_tgan/testing: mend `is_check`"
    return "\n".join(
        f"- **{node.name.replace('_', ' ')}**: {as_markdown(ast.get_docstring(node) or '')}" for node in found
    )


def is_check(node: ast.AST) -> bool:
    """A public function of one trial."""
    return (
        isinstance(node, ast.FunctionDef)
        and not node.name.startswith("_")
        and [ast.unparse(word.annotation or word) for word in node.args.args] == ["Trial"]
        and ast.unparse(node.returns or ast.Constant(None)) == "None"
    )


# -- commands


def commands() -> str:
    """Every command with its arguments and options, as ``--help`` has them."""
    import typer.main

    from adbench_tgan import cli

    return "".join(command(name, one) for name, one in walk(typer.main.get_command(cli.app), "adbench"))


def walk(group: Any, prefix: str) -> Iterator[tuple[str, Any]]:
    """The commands of a group and of its groups, by their full names."""
    for name, one in group.commands.items():
        if hasattr(one, "commands"):
            yield from walk(one, f"{prefix} {name}")
        else:
            yield f"{prefix} {name}", one


def command(name: str, one: Any) -> str:
    """A command's section."""
    lines = [parameter(each) for each in one.params if each.name != "help"]
    arguments = "".join(f" {metavar(each)}" for each in one.params if each.param_type_name == "argument")
    text = f"\n\n## `{name}`\n\n{as_markdown(inspect.cleandoc(one.help or ''))}\n"
    return f"{text}\n```text\n{name}{arguments} [OPTIONS]\n```\n\n" + table(
        ("option", "default", "meaning"), lines
    )


def metavar(argument: Any) -> str:
    """An argument as it stands behind a command."""
    name = argument.name.upper() + ("..." if argument.nargs == -1 else "")
    return name if argument.required else f"[{name}]"


def parameter(each: Any) -> tuple[str, ...]:
    """The line of an option or an argument: name, default, meaning."""
    names = each.opts if each.param_type_name == "option" else [metavar(each)]
    default = each.default
    told = isinstance(default, str | int | float | Path) and default is not False
    shown = f"`{default}`" if told else ""
    described = html.escape(each.help or "", quote=False)
    if stated := re.search(r"\\\[default: (.*)\]$", described):
        shown, described = stated[1], described[: stated.start()].rstrip()
    return ", ".join(f"`{name}`" for name in names), "required" if each.required else shown, described


def table(names: Sequence[str], lines: Iterable[Sequence[str]]) -> str:
    """A Markdown table."""
    rows = [" | ".join(cell.replace("|", "\\|").replace("\n", " ") for cell in line) for line in lines]
    head = [" | ".join(names), " | ".join("---" for _ in names)]
    return "\n".join(f"| {row} |" for row in [*head, *rows]) + "\n"


GENERATED = {
    "detectors": detectors,
    "datasets": datasets,
    "protocols": protocols,
    "metrics": metrics,
    "executors": executors,
    "hooks": hooks,
    "checks": checks,
    "commands": commands,
    "baselines": partial(included, "baselines/README.md"),
    "columns": partial(included, "leaderboards/README.md"),
}

if __name__ == "__main__":
    main()
