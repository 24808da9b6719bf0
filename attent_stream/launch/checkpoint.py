"""Read checkpoints without running code from them.

Composer calls ``torch.load(weights_only=False)``, which runs any code in a pickle. An environment
variable of torch forces ``weights_only=True``: only tensors, plain values and the types listed
here are then built.
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
    """A checkpoint holds an object that is neither a tensor nor a plain value."""


@contextmanager
def numbers_only(allow_unsafe: bool = False) -> Iterator[None]:
    """Restrict ``torch.load`` in this process to tensors, plain values and Composer's own state.

    Args:
        allow_unsafe: Lift the restriction, for trusted checkpoints that hold other objects.

    Raises:
        UnsafeCheckpoint: A file holds any other object.
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
            f"({reason.strip().split(' was not an allowed')[0]}), which could run code; set "
            "load_unsafe_types to true if you trust its author"
        ) from error
    finally:
        if before is None:
            del os.environ[_FORCED]
        else:
            os.environ[_FORCED] = before


def _composers() -> list:
    """List the types in Composer's timestamp, version notes and random generators' states."""
    reconstruct = np.zeros(1).__reduce__()[0]  # Its module differs between numpy 1 and 2.
    return [timedelta, TorchVersion, np.ndarray, np.dtype, reconstruct, type(np.dtype(np.uint32))]
