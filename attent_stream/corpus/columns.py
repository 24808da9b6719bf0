"""Check the columns of a dataset's index and samples against a collator's settings."""

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

_WHOLE = "iu"  # numpy's kinds of signed and unsigned integers
_LABELS = (
    "int",
    "str_int",
    "ndarray",
    *(f"{sign}int{bits}" for sign in ("", "u") for bits in (8, 16, 32, 64)),
)
_IMAGES = ("bytes", "jpeg", "jpeg_array", "jpegarray", "png", "pil", "ndarray")
_BY_SAMPLE = ("json", "list")  # Encodings that do not tell the type of values.


def whole_dtype(name: str) -> np.dtype:
    """Return the integer dtype of a name.

    Raises:
        ValueError: The name is no integer type.
    """
    try:
        dtype = np.dtype(name)
    except TypeError:
        dtype = None
    if dtype is None or dtype.kind not in _WHOLE:
        raise ValueError(
            f"dtype must name whole numbers, such as uint16, int32 or int64, got {name!r}"
        )
    return dtype


def value_of(sample: Mapping[str, Any], column: str, setting: str) -> Any:
    """Return a sample's value in a column.

    Args:
        sample: Values by column.
        column: The column's name.
        setting: The setting that names the column, for the message.

    Raises:
        ValueError: The column is missing.
    """
    try:
        return sample[column]
    except KeyError:
        raise ValueError(
            _missing(
                column, {name: type(value).__name__ for name, value in sample.items()}, setting
            )
        ) from None


def token_ids(
    sample: Mapping[str, Any], column: str, dtype: np.dtype | None
) -> NDArray[np.integer]:
    """Return a sample's token ids, shape (T,).

    Args:
        sample: Values by column.
        column: The column that holds them as an array, a list or raw bytes.
        dtype: The ids' type; required for raw bytes.

    Raises:
        ValueError: The column is missing or does not hold token ids of this dtype.
    """
    value = value_of(sample, column, "column")
    if isinstance(value, np.ndarray):
        ids = value
        if ids.dtype.kind == "u" and ids.ndim == 1 and dtype is None:
            return ids  # The common case, without further checks.
    elif isinstance(value, (bytes, bytearray, memoryview)):
        if dtype is None:
            raise ValueError(_untyped(column))
        if len(value) % dtype.itemsize:
            raise ValueError(
                f"column {column!r} holds {len(value)} bytes in a sample, expected a multiple of "
                f"{dtype.itemsize} for dtype {dtype.name}: set dtype to the type that was written"
            )
        ids = np.frombuffer(value, dtype)
    else:
        ids = _as_array(value)
    if ids.ndim != 1 or (ids.dtype.kind not in _WHOLE and ids.size):
        raise ValueError(
            _no_ids(
                column,
                f"{ids.dtype.name} of shape {ids.shape}" if ids is value else type(value).__name__,
            )
        )
    if dtype is not None and ids is value and ids.dtype != dtype:
        raise ValueError(_other_dtype(column, ids.dtype.name, dtype))
    if ids.dtype.kind == "i" and ids.size and ids.min() < 0:
        raise ValueError(
            f"column {column!r} holds the negative token id {ids.min()}"
            + (f" if read as {dtype.name}" if dtype else "")
            + ": set column and dtype to the ids' column and type"
        )
    return ids


def _as_array(value: Any) -> NDArray:
    try:
        return np.asarray(value)
    except ValueError:  # Lists of different lengths.
        return np.empty((0, 0))


def check_tokens(columns: Mapping[str, str], column: str, dtype: np.dtype | None) -> None:
    """Check that a dataset's index declares token ids in a column.

    Args:
        columns: The encodings by column, from ``index.json``.
        column, dtype: As in ``token_ids``.

    Raises:
        ValueError: The column is missing or has another encoding.
    """
    if column not in columns:
        raise ValueError(_missing(column, columns, "column"))
    encoding = columns[column]
    kind, _, rest = encoding.partition(":")
    if kind == "bytes":
        if dtype is None:
            raise ValueError(_untyped(column))
    elif kind == "ndarray":
        name = rest.partition(":")[0]
        if name and np.dtype(name).kind not in _WHOLE:
            raise ValueError(_no_ids(column, encoding))
        if name and dtype is not None and np.dtype(name) != dtype:
            raise ValueError(_other_dtype(column, encoding, dtype))
    elif kind not in _BY_SAMPLE:
        raise ValueError(_no_ids(column, encoding))


def check_image(columns: Mapping[str, str], image: str, label: str) -> None:
    """Check that a dataset's index declares images and labels in these columns.

    Raises:
        ValueError: A column is missing or has another encoding.
    """
    for column, setting, good, held in (
        (image, "image_column", _IMAGES, "encoded images (bytes, jpeg, png or pil)"),
        (label, "label_column", _LABELS, "class numbers (int)"),
    ):
        if column not in columns:
            raise ValueError(_missing(column, columns, setting))
        if columns[column].partition(":")[0] not in (*good, *_BY_SAMPLE):
            raise ValueError(
                f"column {column!r} holds {columns[column]}, expected {held}: set {setting} to one "
                f"of {_listed(columns)}"
            )


def columns_of(shards: Sequence[Any]) -> list[dict[str, str]]:
    """List the distinct sets of columns of shards, encodings by name, where formats tell them."""
    found = []
    for shard in shards:
        names, encodings = (getattr(shard, f"column_{one}", None) for one in ("names", "encodings"))
        if names is not None and encodings is not None:
            columns = dict(zip(names, encodings, strict=True))
        else:
            columns = getattr(shard, "columns", None)
        if columns and columns not in found:
            found.append(columns)
    return found


def _missing(column: str, columns: Mapping[str, str], setting: str) -> str:
    return f"there is no column {column!r}, only {_listed(columns)}: set {setting} to one of these"


def _untyped(column: str) -> str:
    return (
        f"column {column!r} holds raw bytes: set dtype to the type that was written (usually int64 "
        "for llm-foundry)"
    )


def _other_dtype(column: str, held: str, dtype: np.dtype) -> str:
    return f"column {column!r} holds {held}, not {dtype.name}: remove dtype, which is for raw bytes"


def _no_ids(column: str, held: str) -> str:
    words = (
        "tokenize text with attent-stream corpus text"
        if held == "str"
        else "set column to the column of token ids"
    )
    return (
        f"column {column!r} holds {held}, expected token ids (an array or list of whole numbers, "
        f"or raw bytes with dtype): {words}"
    )


def _listed(columns: Mapping[str, str]) -> str:
    return ", ".join(f"{name!r} ({encoding})" for name, encoding in columns.items()) or "none"
