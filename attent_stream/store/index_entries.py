"""Read an ``index.json`` entry by entry into a table, so that a large one needs little memory."""

import json
import re
from array import array
from collections.abc import Iterator
from pathlib import Path
from typing import Any, TextIO

import numpy as np

from attent_stream.store.index_table import GrowingTexts, IndexTable

_SUPPORTED = 2  # version of an index
_CHUNK = 1 << 20  # characters
_KINDS = ("column_names", "column_encodings", "column_sizes", "hashes", "compression", "size_limit")
_ENTRY = {*_KINDS, "version", "format", "samples", "raw_data", "zip_data"}
_FILE = {"basename", "bytes", "hashes"}
_NO_FILE: dict[str, Any] = {"basename": "", "bytes": -1, "hashes": {}}
# MDSWriter sorts the keys; merge_index writes the version first.
_BEGIN = re.compile(r'\s*(\{(?:\s*"version"\s*:\s*[0-9]+\s*,)?)\s*"shards"\s*:\s*\[')
_BLANK = re.compile(r"\s*")
_MOST_KINDS = 4096
_LONGEST = 1 << 24  # characters of an entry


class UnusualIndexError(ValueError):
    """An index is not as Streaming's MDSWriter writes it, so Streaming itself has to read it."""


def read_table(path: Path) -> IndexTable:
    """Read the index of a stream in MDS format.

    Raises:
        UnusualIndexError: It is another format or version, has other keys, or values of other
            types.
        OSError: It cannot be read.
    """
    try:
        with open(path, encoding="utf-8") as file:
            return _table(entries(file))
    except (
        KeyError,
        TypeError,
        ValueError,
        OverflowError,
        AttributeError,
        RecursionError,
    ) as error:
        raise UnusualIndexError(f"{path}: {error}") from error


def entries(file: TextIO) -> Iterator[dict[str, Any]]:
    """The entries of an index, one after the other.

    Raises:
        ValueError: The file does not begin with its shards, is no JSON, or is of another version.
    """
    decode = json.JSONDecoder().raw_decode
    text = file.read(_CHUNK)
    begin = _BEGIN.match(text)
    if begin is None:
        raise ValueError("shards do not come first")
    at, ended, first = begin.end(), len(text) < _CHUNK, True
    while True:
        # One entry at a time; where it is cut, more is read and it is looked at again.
        start = _BLANK.match(text, at).end()  # type: ignore[union-attr]
        if text[start : start + 1] == "]":
            at = start
            break
        if text[start : start + 1] == "," and not first:
            start = _BLANK.match(text, start + 1).end()  # type: ignore[union-attr]
        elif start < len(text) and not first:
            raise ValueError("no comma between shards")
        try:
            entry, end = decode(text, start)
            if end == len(text) and not ended:
                raise ValueError("the entry may go on")
        except ValueError:
            if ended or len(text) - at > _LONGEST:
                raise
            more = file.read(_CHUNK)
            ended = len(more) < _CHUNK
            text, at = text[at:] + more, 0
            continue
        yield entry
        at, first = end, False
    rest = json.loads(begin[1] + '"shards": [' + text[at:] + file.read())
    if rest.get("version") != _SUPPORTED or rest["shards"] != []:
        raise ValueError(f"version {rest.get('version')!r}, or shards twice")


def _table(found: Iterator[dict[str, Any]]) -> IndexTable:
    numbers = {name: array("q") for name in ("kind", "samples", "raw_bytes", "zip_bytes")}
    texts = {
        name: GrowingTexts() for name in ("raw_names", "zip_names", "raw_hashes", "zip_hashes")
    }
    kinds: dict[str, tuple[int, dict[str, Any]]] = {}  # numbered, by their JSON
    last: dict[str, Any] | None = None
    number = 0
    for entry in found:
        if entry.keys() != _ENTRY or entry["version"] != _SUPPORTED or entry["format"] != "mds":
            raise ValueError("an entry with other keys, of another version or format")
        kind = {name: entry[name] for name in _KINDS}
        if kind != last:
            key = json.dumps(kind, sort_keys=True)
            last, (number, _) = kind, kinds.setdefault(key, (len(kinds), kind))
            if len(kinds) > _MOST_KINDS:
                raise ValueError(f"more than {_MOST_KINDS} kinds of shards")
        numbers["kind"].append(number)
        numbers["samples"].append(_count(entry["samples"]))
        for which in ("raw", "zip"):
            info = entry[f"{which}_data"]
            if info is None and which == "zip":
                info = _NO_FILE
            elif info.keys() != _FILE or not (info["basename"] and info["bytes"] >= 0):
                raise ValueError("a file with other keys, without a name or size")
            if not (isinstance(info["basename"], str) and isinstance(info["hashes"], dict)):
                raise ValueError("a name that is no text, or hashes that are no mapping")
            numbers[f"{which}_bytes"].append(_count(info["bytes"]))
            texts[f"{which}_names"].append(info["basename"])
            texts[f"{which}_hashes"].append(json.dumps(info["hashes"]) if info["hashes"] else "")
    arrays = {name: np.frombuffer(one, np.int64) for name, one in numbers.items() if one}
    if not arrays:
        raise ValueError("no shards")
    arrays["kind"] = arrays["kind"].astype(np.int32)
    listed = {name: one.texts() for name, one in texts.items()}
    return IndexTable(kinds=tuple(kind for _, kind in kinds.values()), **arrays, **listed)


def _count(value: Any) -> int:
    if type(value) is not int:
        raise ValueError(f"{value!r} is no whole number")
    return value
