"""Where documents come from: sources named on the command line, and the files in them."""

import os
import re
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path

from attent_stream.corpus.errors import CorpusError, require

COMPRESSED = (".gz", ".zst")
KINDS = {".jsonl": "jsonl", ".ndjson": "jsonl", ".txt": "text", ".parquet": "parquet"}
NAME = re.compile(r"[A-Za-z0-9_][A-Za-z0-9._-]*")
RESERVED = ("tokenizer", "manifest.json")


@dataclass(frozen=True, kw_only=True)
class Source:
    """One stream of a corpus: its name (a folder of the output) and the files or folders it is read
    from.
    """

    name: str
    paths: tuple[str, ...]

    def __post_init__(self) -> None:
        require(
            bool(NAME.fullmatch(self.name)) and self.name not in RESERVED,
            "a stream's name is letters, digits, '.', '_' or '-', does not begin with '.' or '-', "
            "and is "
            f"none of {', '.join(RESERVED)}; got {self.name!r}",
        )
        require(
            isinstance(self.paths, tuple) and len(self.paths) > 0,
            f"stream {self.name!r} needs a tuple of at least one path, got {self.paths!r}",
        )


@dataclass(frozen=True, kw_only=True)
class InputFile:
    """One file of a source: path, kind ('jsonl', 'text' or 'parquet') and size in bytes on disk."""

    path: str
    kind: str
    size: int


def base_name(name: str) -> str:
    """The file's name without a compression suffix: 'a.jsonl.gz' -> 'a.jsonl'."""
    for suffix in COMPRESSED:
        if name.endswith(suffix):
            return name[: -len(suffix)]
    return name


def normal_extensions(extensions: Iterable[str]) -> tuple[str, ...]:
    """('py', '.md') -> ('.py', '.md')."""
    return tuple(e if e.startswith(".") else f".{e}" for e in extensions)


def kind_of(name: str, extensions: Sequence[str] = ()) -> str | None:
    """The kind of the file called `name`, None if it is not one to read.

    With `extensions`, exactly those are read (as text unless KINDS knows better), else those in
    KINDS.
    """
    name = base_name(name)
    for extension in extensions or KINDS:
        if name.endswith(extension) and name != extension:
            return KINDS.get(extension, "text")
    return None


def stream_name(path: str) -> str:
    """The name of a stream for a path given without one: 'data/my books.jsonl.zst' ->
    'my-books'.
    """
    name = base_name(os.path.basename(os.path.abspath(path)))
    for extension in KINDS:
        name = name.removesuffix(extension)
    name = re.sub(r"[^A-Za-z0-9._-]+", "-", name).lstrip(".-")
    require(bool(name), f"cannot name a stream after {path!r}; give it a name: NAME={path}")
    return name


def sources_from(specs: Iterable[str]) -> tuple[Source, ...]:
    """Sources from PATH or NAME=PATH; several paths with one given name are one stream.

    Raises:
        CorpusError: two paths without a name would get the same one.
    """
    found: dict[str, list[str]] = {}
    unnamed: set[str] = set()
    for spec in specs:
        name, equals, path = spec.partition("=")
        if os.path.exists(spec) or not equals or not NAME.fullmatch(name):
            name, path = stream_name(spec), spec
            require(
                name not in found,
                f"two sources would both be stream {name!r}; name this one: NAME={path}",
            )
            unnamed.add(name)
        require(bool(path), f"no path after the name in {spec!r}")
        require(
            name not in unnamed or name not in found,
            f"stream {name!r} is named twice; name them all",
        )
        found.setdefault(name, []).append(path)
    return tuple(Source(name=name, paths=tuple(paths)) for name, paths in found.items())


def find_files(source: Source, extensions: Sequence[str] = ()) -> tuple[InputFile, ...]:
    """All files of a source; folders are walked in sorted order, hidden names are passed over.

    Raises:
        CorpusError: a path is missing, a file is of no known kind, or a folder holds no file to
            read.
    """
    return tuple(file for path in source.paths for file in _files_at(path, source.name, extensions))


def _files_at(path: str, stream: str, extensions: Sequence[str]) -> list[InputFile]:
    if os.path.isdir(path):
        files = [
            _input(file, kind) for file in _walk(path) if (kind := kind_of(file.name, extensions))
        ]
        wanted = ", ".join(extensions or KINDS)
        require(
            bool(files),
            f"stream {stream!r}: no file ending in {wanted} (or those + .gz, .zst) under {path}",
        )
        return files
    require(os.path.exists(path), f"stream {stream!r}: no such file or folder: {path}")
    # A file named one by one is wanted even where `extensions` narrows folders to something else.
    kind = kind_of(path, extensions) or kind_of(path)
    if kind is None:
        suffix = Path(base_name(path)).suffix or "txt"
        raise CorpusError(
            f"stream {stream!r}: {path} is none of {', '.join(KINDS)}; to read it as text: --ext "
            f"{suffix}"
        )
    return [_input(Path(path), kind)]


def _walk(folder: str) -> list[Path]:
    found = []
    for parent, folders, names in os.walk(folder):
        folders[:] = [name for name in folders if not name.startswith(".")]
        found += [Path(parent, name) for name in names if not name.startswith(".")]
    return sorted(path for path in found if path.is_file())


def _input(path: Path, kind: str) -> InputFile:
    return InputFile(path=str(path), kind=kind, size=path.stat().st_size)
