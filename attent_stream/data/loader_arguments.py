"""Checks of TeachingDataLoader's arguments, before any worker starts."""

from collections.abc import Mapping
from numbers import Integral, Real
from typing import Any

import torch


def check_batch_size(batch_size: Any, expected: int) -> None:
    """Check that the loader's batch size is the data set's.

    Raises:
        ValueError: It differs, or is not a positive integer.
    """
    if batch_size != expected:
        raise ValueError(
            f"batch_size must be the data set's own ({expected}), got {batch_size}: pass the same "
            "batch_size to TeachingDataset and TeachingDataLoader"
        )
    if isinstance(batch_size, bool) or not isinstance(batch_size, Integral) or batch_size < 1:
        raise ValueError(
            "batch_size must be a positive integer in TeachingDataset and TeachingDataLoader, got "
            f"{batch_size!r}"
        )


def check_loader_arguments(given: Mapping[str, Any]) -> None:
    """Refuse arguments that would fail or have no effect when the loader is iterated.

    Args:
        given: The keyword arguments given for torch's DataLoader.

    Raises:
        TypeError: A value has the wrong type.
        ValueError: An argument is not supported, or conflicts with another.
    """
    workers = _whole(given, "num_workers", 0, least=0)
    if not given.get("in_order", True):
        raise ValueError(
            f"in_order must be True, got {given['in_order']!r}: remove it, as teaching and "
            "resuming depend on the order of batches"
        )
    for name in ("sampler", "batch_sampler"):
        if given.get(name) is not None:
            raise ValueError(
                f"{name} must not be given: remove it, as the data set and its teacher choose the "
                "samples"
            )
    if given.get("shuffle"):
        raise ValueError(
            "shuffle must not be given to TeachingDataLoader: pass shuffle=True to TeachingDataset"
        )
    _check_callables(given)
    generator = given.get("generator")
    if generator is not None and not (
        isinstance(generator, torch.Generator) and generator.device.type == "cpu"
    ):
        raise TypeError(f"generator must be a torch.Generator on the CPU, got {generator!r}")
    timeout = given.get("timeout", 0)
    if isinstance(timeout, bool) or not isinstance(timeout, Real) or not float(timeout) >= 0:
        raise ValueError(
            f"timeout must be a number of seconds (0 to wait forever), got {timeout!r}"
        )
    if workers == 0:
        _check_without_workers(given)
    else:
        _whole(given, "prefetch_factor", 2, least=1)


def _check_callables(given: Mapping[str, Any]) -> None:
    for name in ("collate_fn", "worker_init_fn"):
        value = given.get(name)
        if value is not None and not callable(value):
            raise TypeError(f"{name} must be callable, got {type(value).__name__} {value!r}")


def _check_without_workers(given: Mapping[str, Any]) -> None:
    idle = ("timeout", "prefetch_factor", "persistent_workers", "multiprocessing_context")
    wrong = [f"{name}={given[name]!r}" for name in idle if given.get(name)]
    if given.get("prefetch_factor") == 0:
        wrong.append("prefetch_factor=0")
    if wrong:
        raise ValueError(
            f"{' and '.join(wrong)} need workers, got num_workers=0: remove them, or set "
            "num_workers"
        )


def _whole(given: Mapping[str, Any], name: str, default: int, least: int) -> int:
    value = given.get(name, default)
    if value is None and name == "prefetch_factor":
        return default
    if isinstance(value, bool) or not isinstance(value, Integral) or value < least:
        raise ValueError(f"{name} must be an integer of at least {least}, got {value!r}")
    return value


def check_has_batches(samples: int, batch_size: int, drop_last: bool, ranks: int = 1) -> None:
    """Refuse a loader whose epochs have no batch, as training would never end.

    Args:
        samples: A rank's samples in an epoch.
        batch_size: A rank's samples in a batch.
        drop_last: Whether a short last batch is dropped.
        ranks: Number of ranks that read different samples.

    Raises:
        ValueError: There is no batch.
    """
    if samples >= (batch_size if drop_last else 1):
        return
    raise ValueError(
        f"an epoch has no batch with {samples} samples for each of {ranks} "
        f"rank{'s' if ranks > 1 else ''}, batch_size={batch_size} and drop_last={drop_last}: set "
        "drop_last to False, decrease batch_size, or add samples"
    )
