"""Arrays in a checkpoint's position: as small as their kind allows, and unpacked with care."""

import base64
import zlib
from typing import Any

import numpy as np
from numpy.typing import NDArray

_BITS = {"bool": 1, "float16": 16, "float32": 32, "int32": 32}
# Candidates of a window, far beyond 1,024 nodes: a few bytes of zlib may ask for no more memory.
LARGEST = 1 << 28


def packed(value: NDArray) -> dict[str, Any]:
    """An array of two axes as plain values for JSON: bool, float16, float32, or int32 from 0."""
    about: dict[str, Any] = {"dtype": str(value.dtype), "shape": list(value.shape)}
    # Scores and orders hardly become smaller, and a large job has millions of them.
    about["zlib"] = value.dtype not in (np.float32, np.int32)
    if value.dtype == np.int32:
        # The first bytes of each number, as many as the largest needs
        about["width"] = max(1, -(-int(value.max(initial=0)).bit_length() // 8))
        value = _of_width(value.astype("<i4").view(np.uint8), 4, about["width"])
    data = (np.packbits(value) if value.dtype == bool else value).tobytes()
    data = zlib.compress(data, 1) if about["zlib"] else data
    return {**about, "data": base64.b64encode(data).decode()}


def unpacked(value: Any) -> NDArray | None:
    """The array of ``packed``'s values, or None of None.

    Raises:
        ValueError, TypeError, KeyError, zlib.error: It is no such array, or larger than it says.
    """
    if value is None:
        return None
    shape, kind = value["shape"], value["dtype"]
    if kind not in _BITS:
        raise ValueError(
            f"expected an array of {', '.join(_BITS)} in a position, got {str(kind)[:40]!r}"
        )
    counts = (
        isinstance(shape, list)
        and len(shape) == 2
        and all(type(n) is int and 0 <= n <= LARGEST for n in shape)
    )
    if not counts or shape[0] * shape[1] > LARGEST:
        raise ValueError(
            f"expected an array of two axes and at most {LARGEST} candidates, got shape "
            f"{str(shape)[:40]}"
        )
    count, width = shape[0] * shape[1], value.get("width")
    if width is not None and not (kind == "int32" and type(width) is int and 1 <= width <= 4):
        raise ValueError(f"expected int32 of 1 to 4 bytes, got {kind} of {str(width)[:40]!r}")
    size = -(-count * _BITS[kind] // 8) if width is None else count * width
    data, whole = base64.b64decode(value["data"], validate=True), True
    if value.get("zlib", True):  # versions 5 and 6 do not say so
        unpacker = zlib.decompressobj()
        # One byte more tells whether there is more.
        data = unpacker.decompress(data, size + 1)
        whole = unpacker.eof
    if len(data) != size or not whole:
        raise ValueError(
            f"expected {size} bytes for shape {shape} of {kind}, got "
            f"{'more' if len(data) > size else len(data)}"
        )
    if kind == "bool":
        return np.unpackbits(np.frombuffer(data, np.uint8), count=count).astype(bool).reshape(shape)
    if width is not None:
        numbers = _of_width(np.frombuffer(data, np.uint8), width, 4)
        return numbers.view("<i4").astype(np.int32).reshape(shape)
    return np.frombuffer(data, kind).reshape(shape).copy()


def _of_width(data: NDArray[np.uint8], width: int, new: int) -> NDArray[np.uint8]:
    """Cut or fill up little-endian numbers of ``width`` bytes to ``new``, shape (count, new)."""
    numbers = data.reshape(-1, width)
    result = np.zeros((len(numbers), new), np.uint8)
    for byte in range(min(width, new)):  # ten times as fast as all at once
        result[:, byte] = numbers[:, byte]
    return result
