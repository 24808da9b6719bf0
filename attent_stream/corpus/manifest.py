"""The description of a corpus: manifest.json in its top folder, written last."""

import json
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field, fields
from pathlib import Path, PurePosixPath
from typing import Any

from attent_stream import __version__
from attent_stream.corpus.errors import CorpusError, require

MANIFEST = "manifest.json"
FORMAT = 1
KINDS = ("text", "chat", "images")


def inner_path(path: Any, what: str) -> str:
    """Return a path that is relative and stays inside its folder.

    Raises:
        CorpusError: It is absolute, contains '..' or is no path.
    """
    inside = (
        isinstance(path, str) and path not in ("", ".") and "\\" not in path and ":" not in path
    )
    inside = (
        inside and not PurePosixPath(path).is_absolute() and ".." not in PurePosixPath(path).parts
    )
    require(inside, f"{what} must be a relative path inside the corpus, got {path!r}")
    return path


def _count(value: Any, what: str) -> None:
    good = isinstance(value, int) and not isinstance(value, bool) and value >= 0
    require(good, f"{what} must be a whole number from 0, got {value!r}")


@dataclass(frozen=True, kw_only=True)
class Part:
    """A split of a stream: a folder of MDS shards.

    Attributes:
        stream, split: Their names.
        path: The folder, relative to the manifest.
        documents: Number of documents or images.
        samples: Number of samples; if 0, the folder does not exist.
        tokens: Tokens of all documents, with their end-of-text tokens (0 for images).
        dropped_tokens: The last tokens, which did not fill a sample.
    """

    stream: str
    split: str
    path: str
    documents: int
    samples: int
    tokens: int = 0
    dropped_tokens: int = 0

    def __post_init__(self) -> None:
        inner_path(self.path, "a part's path")
        for name in ("documents", "samples", "tokens", "dropped_tokens"):
            _count(getattr(self, name), f"{name} of part {self.path!r}")


@dataclass(frozen=True, kw_only=True)
class BadRecords:
    """The number of records that a stream omits for a reason, and the first few ('file:line')."""

    stream: str
    reason: str
    count: int
    first: tuple[str, ...]

    def __post_init__(self) -> None:
        _count(self.count, "count of bad records")


@dataclass(frozen=True, kw_only=True)
class Manifest:
    """The description of a corpus.

    Attributes:
        kind: 'text' (column `tokens`), 'chat' (columns `input_ids`, `labels`) or 'images' (columns
            `image`: file bytes, `label`: int).
        parts: Every split of every stream.
        bad: Omitted records.
        tokenizer: The tokenizer's folder, relative to the manifest.
        vocab_size: The largest token id + 1.
        eos_id: The token id that ends a document.
        seq_len, dtype: Length and type of a sample's tokens.
        classes: The name of each label.
        settings: The other settings that the corpus depends on.
        version: The version of attent-stream that wrote it.
    """

    kind: str
    parts: tuple[Part, ...]
    bad: tuple[BadRecords, ...] = ()
    tokenizer: str | None = None
    vocab_size: int | None = None
    eos_id: int | None = None
    seq_len: int | None = None
    dtype: str | None = None
    classes: tuple[str, ...] = ()
    settings: Mapping[str, Any] = field(default_factory=dict)
    version: str = __version__

    def __post_init__(self) -> None:
        require(
            self.kind in KINDS, f"a corpus's kind is one of {', '.join(KINDS)}, got {self.kind!r}"
        )
        if self.tokenizer is not None:
            inner_path(self.tokenizer, "the tokenizer's path")

    def total(self, name: str, split: str | None = None) -> int:
        """Sum a count, such as 'samples' or 'tokens', over all parts or those of a split."""
        return sum(getattr(part, name) for part in self.parts if split in (None, part.split))

    @property
    def splits(self) -> tuple[str, ...]:
        """Names of the splits in the order of the parts, 'train' first."""
        return tuple(dict.fromkeys(part.split for part in self.parts))

    def save(self, folder: str | Path) -> Path:
        """Write manifest.json to a folder and return its path."""
        path = Path(folder) / MANIFEST
        path.write_text(json.dumps({"format": FORMAT, **asdict(self)}, indent=2) + "\n", "utf-8")
        return path

    @classmethod
    def load(cls, path: str | Path) -> "Manifest":
        """Read a manifest.json, or the one in a folder.

        Raises:
            CorpusError: It is missing or cannot be read, or a path in it leaves the folder.
        """
        path = Path(path)
        path = path / MANIFEST if path.is_dir() else path
        require(
            path.is_file(),
            f"no corpus at {path.parent}: {path.name} is missing (was writing interrupted?)",
        )
        try:
            value = json.loads(path.read_text("utf-8"))
            require(isinstance(value, dict), "not a JSON object")
            found = value.pop("format", None)
            require(found == FORMAT, f"format {FORMAT} expected, got {found!r}")
            value["parts"] = _each(Part, value.get("parts"))
            value["bad"] = tuple(
                _build(BadRecords, {**b, "first": tuple(b["first"])}) for b in value.get("bad", ())
            )
            value["classes"] = tuple(value.get("classes", ()))
            return _build(cls, value)
        except (ValueError, TypeError, KeyError) as error:
            raise CorpusError(f"{path} is not a manifest of this version: {error}") from error


def _each(kind: type, values: Any) -> tuple:
    require(isinstance(values, list), f"a list of {kind.__name__} expected, got {values!r}")
    return tuple(_build(kind, value) for value in values)


def _build(kind: type, value: Mapping[str, Any]) -> Any:
    unknown = set(value) - {f.name for f in fields(kind)}
    require(not unknown, f"unknown key(s) {', '.join(sorted(unknown))}")
    return kind(**value)
