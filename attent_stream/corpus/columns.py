"""Columns of a data set: what its index says of them, and what collate functions take them for."""

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

_WHOLE = "iu"  # numpy's kinds of integers, signed and unsigned
_LABELS = (
    "int",
    "str_int",
    "ndarray",
    *(f"{sign}int{bits}" for sign in ("", "u") for bits in (8, 16, 32, 64)),
)
_IMAGES = ("bytes", "jpeg", "jpeg_array", "jpegarray", "png", "pil", "ndarray")
_BY_SAMPLE = ("json", "list")  # encodings that say nothing of what is inside


def whole_dtype(name: str) -> np.dtype:
    """The dtype of token ids that a setting names.

    Raises:
        ValueError: No whole numbers' name.
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
    """A sample's value in a column.

    Args:
        setting: Which names the column, for the message.

    Raises:
        ValueError: There is no such column.
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
    """Token ids of a sample, shape (T,).

    Args:
        column: Where they are: an array, a list, or raw bytes.
        dtype: Of the ids; raw bytes are read by it.

    Raises:
        ValueError: There is no such column, or it does not hold token ids of this dtype.
    """
    value = value_of(sample, column, "column")
    if isinstance(value, np.ndarray):
        ids = value
        if ids.dtype.kind == "u" and ids.ndim == 1 and dtype is None:
            return ids  # as a rule
    elif isinstance(value, (bytes, bytearray, memoryview)):
        if dtype is None:
            raise ValueError(_untyped(column))
        if len(value) % dtype.itemsize:
            raise ValueError(
                f"column {column!r} holds {len(value)} bytes in a sample, no multiple of the "
                f"{dtype.itemsize} of dtype {dtype.name}: "
                f"set dtype to what was written"
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
            + (f" where it is read as {dtype.name}" if dtype else "")
            + ": set column and dtype to where the ids are and what they were written as"
        )
    return ids


def _as_array(value: Any) -> NDArray:
    try:
        return np.asarray(value)
    except ValueError:  # lists of different lengths
        return np.empty((0, 0))


def check_tokens(columns: Mapping[str, str], column: str, dtype: np.dtype | None) -> None:
    """See to it that a data set's index promises token ids in a column.

    Args:
        columns: Each column's encoding, as ``index.json`` names it.
        column, dtype: As of ``token_ids``.

    Raises:
        ValueError: It does not.
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
    """See to it that a data set's index promises images and labels in these columns.

    Raises:
        ValueError: It does not.
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
    """Each set of columns, with their encodings, that shards of a data set have; none of formats
    that do not say.
    """
    found = []
    for shard in shards:
        known = vars(shard)
        if "column_names" in known and "column_encodings" in known:
            columns = dict(zip(known["column_names"], known["column_encodings"], strict=True))
        else:
            columns = known.get("columns")
        if columns and columns not in found:
            found.append(columns)
    return found


def _missing(column: str, columns: Mapping[str, str], setting: str) -> str:
    return f"there is no column {column!r}, only {_listed(columns)}: set {setting} to one of these"


def _untyped(column: str) -> str:
    return (
        f"column {column!r} holds raw bytes: set dtype to what they were written as (llm-foundry's "
        f"as a rule int64)"
    )


def _other_dtype(column: str, held: str, dtype: np.dtype) -> str:
    return (
        f"column {column!r} holds {held}, not {dtype.name}: leave dtype away, which is for raw "
        "bytes"
    )


def _no_ids(column: str, held: str) -> str:
    words = (
        ": text is tokenized when a corpus is written (attent-stream corpus text)"
        if held == "str"
        else ": set column to where they are"
    )
    return (
        f"column {column!r} holds {held}, expected token ids (an array or list of whole numbers, "
        f"or raw bytes with dtype){words}"
    )


def _listed(columns: Mapping[str, str]) -> str:
    return ", ".join(f"{name!r} ({encoding})" for name, encoding in columns.items()) or "none"
