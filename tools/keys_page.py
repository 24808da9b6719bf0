"""Write docs/keys.md: every key of a training YAML, from the typed settings.

python tools/keys_page.py            # writes the page
python tools/keys_page.py --check    # fails if the page is not what would be written
"""

import argparse
import dataclasses
import inspect
import re
import types
import typing
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any, Literal

from attent_stream import AtteNT, ProgressiveResolution
from attent_stream.fit.choice_log import ChoiceLog
from attent_stream.fit.scoring import Scoring
from attent_stream.fit.target import TargetStream
from attent_stream.launch import config_sections as sections
from attent_stream.launch import parts
from attent_stream.launch.config import TrainConfig
from attent_stream.memory.remember import Remember

PAGE = Path(__file__).resolve().parent.parent / "docs" / "keys.md"
TITLE = """# YAML keys

Every key of the file that `attent-stream train FILE.yaml key=value ...` reads. An unknown key is
refused, with the nearest right one. [settings.md](settings.md) explains the settings of AtteNT, its
data set and its loader, with examples.

`python tools/keys_page.py` makes this page from the classes that read the file. In the column
*default*, `required` marks keys that must be given.
"""
SECTIONS: tuple[tuple[str, str, Callable], ...] = (
    ("Top level", "", TrainConfig),
    ("`model`", "", sections.ModelConfig),
    ("`tokenizer`", "", sections.TokenizerConfig),
    ("`train_loader`", "", sections.TrainLoaderConfig),
    ("`train_loader.dataset`", "", sections.TeachingConfig),
    (
        "`dataset.streams.NAME`",
        "`streams` maps a name of yours to a stream.",
        sections.StreamConfig,
    ),
    (
        "`eval_loader`",
        "One of these, or a list. Its `dataset` takes the keys of `train_loader.dataset`, without "
        "`window`, `gap`, `order` and `require_teacher`.",
        sections.EvalLoaderConfig,
    ),
    (
        "`algorithms.attent`",
        "A default of `null` is that of the run ([settings.md](settings.md#the-default-of-a-run)).",
        AtteNT,
    ),
    ("`algorithms.attent.remember`", "", Remember),
    (
        "`algorithms.attent.scoring`",
        "`fidelity` is `full`, `auto` or a mapping ([scoring.md](scoring.md)). A name in place of "
        "this mapping stands for `{fidelity: NAME}`.",
        Scoring,
    ),
    ("`algorithms.attent.target`", "One of these, or a list, or a path.", TargetStream),
    ("`algorithms.progressive_resolution`", "", ProgressiveResolution),
    ("`algorithms.choice_log`", "", ChoiceLog),
)


def meanings(kind: Callable) -> dict[str, str]:
    """Return what the docstring's ``Args`` say of each argument, of base classes too.

    Returns:
        A sentence or more in Markdown, by name.
    """
    found: dict[str, str] = {}
    for base in reversed(kind.__mro__ if inspect.isclass(kind) else (kind,)):
        text = inspect.cleandoc(base.__doc__ or "")
        listed = re.search(r"^Args:\n((?:    .*\n?|\n)+)", text, re.MULTILINE)
        if not listed:
            continue
        lines = inspect.cleandoc("\n" + listed[1])
        for entry in re.split(r"\n(?=\S)", lines):
            name, _, meaning = entry.partition(":")
            meaning = " ".join(meaning.split()).replace("``", "`")
            found[name] = re.sub(r"\bNone\b", "`null`", meaning)
    return found


def type_name(hint: Any) -> str:
    """Return a type in the words of a YAML's reader."""
    if hint is None or hint is type(None):
        return "null"
    if hint is Any:
        return "any"
    origin, inner = typing.get_origin(hint), typing.get_args(hint)
    if origin is Literal:
        return ", ".join(f"`{one}`" for one in inner)
    if origin in (typing.Union, types.UnionType):
        names = [type_name(one) for one in inner if one is not type(None)]
        return " or ".join(dict.fromkeys(names))
    if hint in (list, tuple) or origin in (list, tuple, Sequence):
        return "list"
    if origin is Callable:
        return "function (Python only)"
    if hint is dict or origin in (dict, Mapping) or dataclasses.is_dataclass(hint):
        return "mapping"
    names = {bool: "true or false", int: "whole number", float: "number", str: "text"}
    return names.get(hint, "mapping" if inspect.isclass(hint) else str(hint))


def rows(kind: Callable) -> list[tuple[str, str, str, str]]:
    """Return name, type, default and meaning of each argument that a YAML can give.

    Raises:
        ValueError: The docstring does not say what an argument means.
    """
    hints = typing.get_type_hints(kind.__init__)
    told, found = meanings(kind), []
    for name, parameter in inspect.signature(kind).parameters.items():
        if parameter.kind is inspect.Parameter.VAR_KEYWORD:
            continue
        if name not in told:
            raise ValueError(f"{kind.__name__}: the docstring says nothing of {name}")
        found.append((name, type_name(hints[name]), _default(kind, parameter), told[name]))
    return found


def _default(kind: Callable, parameter: inspect.Parameter) -> str:
    value = parameter.default
    if value is inspect.Parameter.empty:
        return "required"
    if dataclasses.is_dataclass(kind):
        field = {one.name: one for one in dataclasses.fields(kind)}[parameter.name]
        if field.default_factory is not dataclasses.MISSING:
            value = field.default_factory()
    if value is None or isinstance(value, bool):
        return {None: "`null`", True: "`true`", False: "`false`"}[value]
    if value == {}:
        return "`{}`"
    return f"`{value}`" if isinstance(value, (int, float, str)) else "`full`"


def page() -> str:
    """Return the page in Markdown."""
    lines = [TITLE]
    for heading, note, kind in SECTIONS:
        lines += [f"## {heading}", ""]
        lines += [note, ""] if note else []
        lines += ["| key | type | default | meaning |", "| --- | --- | --- | --- |"]
        for row in rows(kind):
            cells = [f"`{row[0]}`", *row[1:]]
            lines.append("| " + " | ".join(cell.replace("|", "\\|") for cell in cells) + " |")
        lines.append("")
    lines += ["## Names", "", "| section | names |", "| --- | --- |"]
    tables = {
        "optimizer": parts.optimizers(),
        "scheduler": parts.schedulers(),
        "algorithms": parts.algorithms().known,
        "callbacks": parts.callbacks(),
        "loggers": parts.loggers(),
    }
    for section, table in tables.items():
        lines.append(f"| `{section}` | {', '.join(f'`{name}`' for name in sorted(table))} |")
    lines += [
        "",
        "Algorithms and callbacks of your own are named `package.module:Class` under `algorithms`.",
        "",
    ]
    return "\n".join(lines)


def main(arguments: Sequence[str] | None = None) -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--check", action="store_true")
    given = parser.parse_args(arguments)
    made = page()
    if not given.check:
        PAGE.write_text(made, encoding="utf-8")
    elif PAGE.read_text(encoding="utf-8") != made:
        raise SystemExit(f"{PAGE}: not of these settings, run: python tools/keys_page.py")


if __name__ == "__main__":
    main()
