"""Checkpoints read as tensors and numbers: nothing in them is run.

Composer reads a checkpoint with ``torch.load(weights_only=False)``, which runs whatever a pickle
says. torch can be told by its environment to read it without: then only what is listed here is
made, beside tensors and plain values.
"""

import os
import pickle
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import timedelta

import numpy as np
import torch
from torch.torch_version import TorchVersion

_FORCED = "TORCH_FORCE_WEIGHTS_ONLY_LOAD"


class UnsafeCheckpoint(ValueError):
    """A checkpoint that holds more than tensors and numbers; the message names what."""


@contextmanager
def numbers_only(allow_unsafe: bool = False) -> Iterator[None]:
    """Inside, ``torch.load`` of this process makes tensors, plain values and what Composer's own
    state needs, no other object.

    Args:
        allow_unsafe: Change nothing: for checkpoints of one's own that hold other objects.

    Raises:
        UnsafeCheckpoint: A file read inside asks for another.
    """
    if allow_unsafe:
        yield
        return
    before = os.environ.get(_FORCED)
    os.environ[_FORCED] = "1"
    try:
        with torch.serialization.safe_globals(_composers()):
            yield
    except pickle.UnpicklingError as error:
        reason = next(
            (line for line in str(error).splitlines() if "GLOBAL" in line or "Unsupported" in line),
            str(error),
        )
        raise UnsafeCheckpoint(
            "the checkpoint holds more than tensors and numbers "
            f"({reason.strip().split(' was not an allowed')[0]}), which could "
            "run code: it is not loaded unless load_unsafe_types is true, for those who trust "
            "whoever wrote it"
        ) from error
    finally:
        if before is None:
            del os.environ[_FORCED]
        else:
            os.environ[_FORCED] = before


def _composers() -> list:
    """Of Composer's timestamp (durations), its notes on versions, and the states of Python's,
    numpy's and torch's generators.
    """
    reconstruct = np.zeros(1).__reduce__()[0]  # its module differs between numpy 1 and 2
    return [timedelta, TorchVersion, np.ndarray, np.dtype, reconstruct, type(np.dtype(np.uint32))]
