"""Sources of documents, and the files in them."""

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
    """A stream's name, which is its output folder, and its input files or folders."""

    name: str
    paths: tuple[str, ...]

    def __post_init__(self) -> None:
        require(
            bool(NAME.fullmatch(self.name)) and self.name not in RESERVED,
            "a stream's name is letters, digits, '.', '_' or '-', does not begin with '.' or '-', "
            f"and is none of {', '.join(RESERVED)}; got {self.name!r}",
        )
        require(
            isinstance(self.paths, tuple) and len(self.paths) > 0,
            f"stream {self.name!r} needs a tuple of at least one path, got {self.paths!r}",
        )


@dataclass(frozen=True, kw_only=True)
class InputFile:
    """A file's path, kind ('jsonl', 'text' or 'parquet') and size in bytes on disk."""

    path: str
    kind: str
    size: int


def base_name(name: str) -> str:
    """Remove a compression suffix: 'a.jsonl.gz' -> 'a.jsonl'."""
    for suffix in COMPRESSED:
        if name.endswith(suffix):
            return name[: -len(suffix)]
    return name


def normal_extensions(extensions: Iterable[str]) -> tuple[str, ...]:
    """Add missing dots: ('py', '.md') -> ('.py', '.md')."""
    return tuple(e if e.startswith(".") else f".{e}" for e in extensions)


def kind_of(name: str, extensions: Sequence[str] = ()) -> str | None:
    """Return the kind of a file by its name, or None if it is not read.

    Files with `extensions` are read, as text if KINDS lacks them. Without, those in KINDS are.
    """
    name = base_name(name)
    for extension in extensions or KINDS:
        if name.endswith(extension) and name != extension:
            return KINDS.get(extension, "text")
    return None


def stream_name(path: str) -> str:
    """Derive a stream's name from a path: 'data/my books.jsonl.zst' -> 'my-books'."""
    name = base_name(os.path.basename(os.path.abspath(path)))
    for extension in KINDS:
        name = name.removesuffix(extension)
    name = re.sub(r"[^A-Za-z0-9._-]+", "-", name).lstrip(".-")
    require(bool(name), f"cannot name a stream after {path!r}; give it a name: NAME={path}")
    return name


def sources_from(specs: Iterable[str]) -> tuple[Source, ...]:
    """Parse PATH or NAME=PATH strings; paths with the same given name are one stream.

    Raises:
        CorpusError: A derived name is not unique, or a path or a name is wrong.
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
            f"stream {name!r} is named twice; name all its paths",
        )
        found.setdefault(name, []).append(path)
    return tuple(Source(name=name, paths=tuple(paths)) for name, paths in found.items())


def find_files(source: Source, extensions: Sequence[str] = ()) -> tuple[InputFile, ...]:
    """List all files of a source; folders are walked in sorted order, without hidden names.

    Raises:
        CorpusError: A path is missing, a file's kind is unknown, or a folder has no file to read.
    """
    return tuple(file for path in source.paths for file in _files_at(path, source.name, extensions))


def _files_at(path: str, stream: str, extensions: Sequence[str]) -> list[InputFile]:
    if os.path.isdir(path):
        files = [
            _input(file, kind) for file in _walk(path) if (kind := kind_of(file.name, extensions))
        ]
        endings = ", ".join(extensions or KINDS)
        require(
            bool(files),
            f"stream {stream!r}: no file ending in {endings} (or those + .gz, .zst) under {path}",
        )
        return files
    require(os.path.exists(path), f"stream {stream!r}: no such file or folder: {path}")
    # `extensions` restricts folders, not files that are named one by one.
    kind = kind_of(path, extensions) or kind_of(path)
    if kind is None:
        suffix = Path(base_name(path)).suffix or "txt"
        raise CorpusError(
            f"stream {stream!r}: {path} is none of {', '.join(KINDS)}; read it as text with --ext "
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
