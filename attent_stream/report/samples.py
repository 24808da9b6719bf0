"""Read samples again by their ids, and show them as a line of text."""

import tempfile
from collections.abc import Sequence
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import numpy as np

from attent_stream.report.choices import Stream
from attent_stream.report.errors import LogError

TOKENS = ("tokens", "input_ids")
_LARGEST = 1 << 16  # bytes of an image that is shown
_UP = 4  # folders above the data in which a tokenizer is looked for


class SampleReader:
    """Reads samples of a run's streams. Use it in a ``with`` block.

    Args:
        streams: The streams.
        tokenizer: Folder of a tokenizer, or its tokenizer.json; None: the one beside the data.

    Raises:
        LogError: The tokenizer cannot be read.
    """

    def __init__(self, streams: Sequence[Stream], tokenizer: str | None = None) -> None:
        self._streams = streams
        self._open: dict[int, Any] = {}  # data sets
        self._tokenizers: dict[int, Any] = {}
        self._stack = ExitStack()
        self._given = None if tokenizer is None else _tokenizer(Path(tokenizer), asked=True)

    def __enter__(self) -> "SampleReader":
        return self

    def __exit__(self, *_: object) -> None:
        self._open.clear()
        self._stack.close()

    def line(self, stream: int, sample: int, width: int) -> str:
        """A sample in one line of at most so many characters."""
        return self.shown(stream, sample, width)[0]

    def shown(self, stream: int, sample: int, width: int) -> tuple[str, bytes | None]:
        """A sample in one line of at most so many characters, and the bytes of its JPEG or PNG
        image of at most 64 KiB; None for everything else.
        """
        try:
            value = self._read(stream, sample)
        except Exception as error:  # every store has its own
            return shortened(f"(not readable: {error})", width), None
        return shortened(self._told(stream, value), width), image_of(value)

    def _told(self, stream: int, value: dict[str, Any]) -> str:
        for name in TOKENS:
            if name in value:
                return self._text(stream, np.asarray(value[name]))
        said = []
        for name, one in value.items():
            shape = getattr(one, "shape", None)
            size = getattr(one, "size", None)
            large = f"{type(one).__name__} {shape or size or len(one)}" if shape or size else ""
            if isinstance(one, bytes):
                large = f"{len(one):,} bytes"
            said.append(f"{name} {large or one}")
        return ", ".join(said)

    def _read(self, stream: int, sample: int) -> dict[str, Any]:
        from attent_stream.store.index_check import CheckedDataset

        place = self._streams[stream]
        if stream not in self._open:
            local = place.local
            if place.remote is not None:  # the run's own cache is left alone
                local = self._stack.enter_context(tempfile.TemporaryDirectory())
            self._open[stream] = CheckedDataset(
                remote=place.remote, local=local, split=place.split, batch_size=1
            )
        return self._open[stream][sample - place.first]

    def _text(self, stream: int, ids: np.ndarray) -> str:
        if stream not in self._tokenizers:
            self._tokenizers[stream] = self._given or _beside(self._streams[stream])
        tokenizer = self._tokenizers[stream]
        if tokenizer is None:
            return " ".join(map(str, ids[:64].tolist()))
        return tokenizer.decode(ids.astype(np.int64).tolist(), skip_special_tokens=False)


def shortened(text: str, width: int) -> str:
    """A text in one line, without control characters, of at most so many characters."""
    line = " ".join("".join(c if c.isprintable() else " " for c in text).split())
    return line if len(line) <= width else line[: width - 3] + "..."


def image_of(value: dict[str, Any]) -> bytes | None:
    """The bytes of a sample's first JPEG or PNG image of at most 64 KiB, or None."""
    for one in value.values():
        known = isinstance(one, bytes) and one.startswith((b"\x89PNG", b"\xff\xd8\xff"))
        if known and len(one) <= _LARGEST:
            return one
    return None


def _beside(stream: Stream) -> Any | None:
    for place in (stream.local, stream.remote):
        if place is None or "://" in place:
            continue
        for folder in [Path(place), *Path(place).absolute().parents][:_UP]:
            found = _tokenizer(folder / "tokenizer", asked=False)
            if found is not None:
                return found
    return None


def _tokenizer(path: Path, *, asked: bool) -> Any | None:
    from tokenizers import Tokenizer

    file = path / "tokenizer.json" if path.is_dir() else path
    if not file.is_file():
        if asked:
            raise LogError(f"no tokenizer.json at {path}")
        return None
    try:
        return Tokenizer.from_file(str(file))
    except Exception as error:  # the library raises plain Exception
        raise LogError(f"{file} is no tokenizer: {error}") from error
