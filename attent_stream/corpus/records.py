"""Read raw records from files in batches, and parse them into documents.

One process reads in order; any process can parse.
"""

import json
import zlib
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field

import zstandard

from attent_stream.corpus.sources import InputFile

# Larger records are bad, so that a missing newline cannot fill the memory.
MAX_RECORD_BYTES = 64 << 20
BATCH_BYTES = 1 << 20
BATCH_RECORDS = 1024
# Compressed input is read in small chunks because it can grow a thousandfold.
READ_BYTES = 1 << 20
READ_COMPRESSED_BYTES = 1 << 15


class BadRecord(Exception):
    """A record without a document; the message is the reason that is counted."""


@dataclass(frozen=True, kw_only=True)
class Batch:
    """Raw records of one kind, in order.

    Attributes:
        kind: 'jsonl', 'text' or 'parquet'.
        payloads: The records; None is a null in a parquet column.
        locations: For each record 'file:line', or 'file' if the file is the record.
        bad: (reason, location, count) of unreadable records, in order.
        read: Bytes of the files read since the previous batch.
    """

    kind: str
    payloads: list[bytes | None] = field(default_factory=list)
    locations: list[str] = field(default_factory=list)
    bad: list[tuple[str, str, int]] = field(default_factory=list)
    read: int = 0


def parse_record(kind: str, payload: bytes | None, text_key: str) -> str:
    """Return the document in a raw record.

    Raises:
        BadRecord: There is none.
    """
    if not isinstance(payload, bytes):
        raise BadRecord("text is not a string")
    try:
        text = payload.decode("utf-8-sig")
    except UnicodeDecodeError:
        raise BadRecord("invalid UTF-8") from None
    if kind == "jsonl":
        text = _text_of(text, text_key)
    if not text.strip():
        raise BadRecord("empty text")
    return text


def _text_of(line: str, text_key: str) -> str:
    try:
        record = json.loads(line)
    except (ValueError, RecursionError):  # Thousands of nested brackets raise RecursionError.
        raise BadRecord("invalid JSON") from None
    if not isinstance(record, dict) or text_key not in record:
        raise BadRecord(f"no key {text_key!r}")
    text = record[text_key]
    if not isinstance(text, str):
        raise BadRecord("text is not a string")
    try:
        text.encode("utf-8")
    except UnicodeEncodeError:  # No tokenizer takes half a surrogate pair.
        raise BadRecord("invalid UTF-8") from None
    return text


def read_batches(files: Iterable[InputFile], text_key: str) -> Iterator[Batch]:
    """Yield the records of all files in batches of about 1 MiB; broken files are bad records."""
    kind, payloads, locations, bad, size, read = "", [], [], [], 0, 0
    for file in files:
        position = 0
        for location, payload, position_now, reason, count in _records(file, text_key):
            read += position_now - position
            position = position_now
            if payloads and (
                file.kind != kind or size >= BATCH_BYTES or len(payloads) >= BATCH_RECORDS
            ):
                yield Batch(kind=kind, payloads=payloads, locations=locations, bad=bad, read=read)
                payloads, locations, bad, size, read = [], [], [], 0, 0
            kind = file.kind
            if reason:
                bad.append((reason, location, count))
            else:
                payloads.append(payload)
                locations.append(location)
                size += len(payload or b"")
        read += file.size - position
    yield Batch(kind=kind, payloads=payloads, locations=locations, bad=bad, read=read)


def _records(file: InputFile, text_key: str) -> Iterator[tuple[str, bytes | None, int, str, int]]:
    """Yield (location, payload, bytes read so far, reason if bad, count) for each record."""
    location = file.path
    try:
        if file.kind == "parquet":
            yield from _rows(file, text_key)
        elif file.kind == "text":
            yield _whole(file)
        else:
            for number, line, position in _lines(_chunks(file.path)):
                location = f"{file.path}:{number + 1}"
                here = f"{file.path}:{number}"
                if line is None:
                    yield here, None, position, "longer than 64 MiB", 1
                elif line.strip():
                    yield here, line, position, "", 1
    except BadRecord as error:
        yield location, None, file.size, str(error), 1
    except OSError as error:
        yield (
            location,
            None,
            file.size,
            f"unreadable file ({error.strerror or type(error).__name__})",
            1,
        )


def _whole(file: InputFile) -> tuple[str, bytes | None, int, str, int]:
    parts, size = [], 0
    for chunk, position in _chunks(file.path):
        parts.append(chunk)
        size += len(chunk)
        if size > MAX_RECORD_BYTES:
            return file.path, None, position, "longer than 64 MiB", 1
    return file.path, b"".join(parts), file.size, "", 1


def _decompressor(path: str):
    if path.endswith(".gz"):
        return zlib.decompressobj(wbits=31)
    return zstandard.ZstdDecompressor(max_window_size=1 << 31).decompressobj()


def _chunks(path: str) -> Iterator[tuple[bytes, int]]:
    """Yield (decompressed bytes, bytes read so far); a file may have several compressed frames."""
    compressed = path.endswith((".gz", ".zst"))
    with open(path, "rb") as file:
        if not compressed:
            while chunk := file.read(READ_BYTES):
                yield chunk, file.tell()
            return
        frame, begun = _decompressor(path), False
        while data := file.read(READ_COMPRESSED_BYTES):
            while data:
                begun = True
                chunk, data, ended = _decompress(frame, data)
                if chunk:
                    yield chunk, file.tell()
                if ended:
                    frame, begun = _decompressor(path), False
        if begun:
            raise BadRecord("broken compression")


def _decompress(frame, data: bytes) -> tuple[bytes, bytes, bool]:
    """Return (output, input left for the next frame, whether the frame ended)."""
    try:
        chunk = frame.decompress(data)
    except (zlib.error, zstandard.ZstdError):
        raise BadRecord("broken compression") from None
    return chunk, frame.unused_data, frame.eof


def _lines(chunks: Iterable[tuple[bytes, int]]) -> Iterator[tuple[int, bytes | None, int]]:
    """Yield (number from 1, line without newline or None if too long, bytes read so far)."""
    number, parts, held, position = 1, [], 0, 0
    for chunk, position in chunks:
        first, *rest = chunk.split(b"\n")
        parts.append(first)
        held += len(first)
        if held > MAX_RECORD_BYTES:
            parts = []
        if not rest:
            continue
        yield number, b"".join(parts) if held <= MAX_RECORD_BYTES else None, position
        for line in rest[:-1]:
            number += 1
            yield number, line if len(line) <= MAX_RECORD_BYTES else None, position
        number += 1
        parts, held = [rest[-1]], len(rest[-1])
    if held:
        yield number, b"".join(parts) if held <= MAX_RECORD_BYTES else None, position


def _rows(file: InputFile, text_key: str) -> Iterator[tuple[str, bytes | None, int, str, int]]:
    import pyarrow as pa
    import pyarrow.parquet as pq

    row = 0
    try:
        with pq.ParquetFile(file.path) as parquet:
            total = parquet.metadata.num_rows
            if text_key not in parquet.schema_arrow.names:
                yield f"{file.path}:1", None, file.size, f"no key {text_key!r}", total
                return
            for table in parquet.iter_batches(
                batch_size=256, columns=[text_key], use_threads=False
            ):
                for payload in _cells(table.column(0)):
                    row += 1
                    yield f"{file.path}:{row}", payload, file.size * row // total, "", 1
    except pa.ArrowException:
        raise BadRecord("broken parquet") from None
    except OSError as error:
        # pyarrow reports broken pages as OSError without an errno.
        if error.errno is not None:
            raise
        raise BadRecord("broken parquet") from None


def _cells(column) -> list[bytes | None]:
    """Return a column's cells as unchecked UTF-8 bytes, or None for cells that are no strings.

    pyarrow's own check would fail a whole batch.
    """
    import pyarrow as pa

    if pa.types.is_dictionary(column.type):
        column = column.dictionary_decode()
    if pa.types.is_string(column.type) or pa.types.is_binary(column.type):
        return column.cast(pa.binary()).to_pylist()
    if pa.types.is_large_string(column.type) or pa.types.is_large_binary(column.type):
        return column.cast(pa.large_binary()).to_pylist()
    return [None] * len(column)
