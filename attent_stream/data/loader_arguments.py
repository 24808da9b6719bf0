"""What TeachingDataLoader refuses of torch DataLoader's arguments, before any worker starts."""

from collections.abc import Mapping
from numbers import Integral, Real
from typing import Any

import torch


def check_loader_arguments(given: Mapping[str, Any]) -> None:
    """Refuse what would fail, or be without effect, once the loader is iterated.

    Args:
        given: Keyword arguments of DataLoader, those that were given.

    Raises:
        TypeError: A value of a wrong type.
        ValueError: An argument that cannot work with this loader, or with these others.
    """
    workers = _whole(given, "num_workers", 0, least=0)
    if not given.get("in_order", True):
        raise ValueError(
            f"in_order must be True, got {given['in_order']!r}: which batch comes when is part of "
            f"what is taught and resumed; "
            f"leave it away"
        )
    for name in ("sampler", "batch_sampler"):
        if given.get(name) is not None:
            raise ValueError(
                f"{name} must not be given: the data set and its teacher say which samples come "
                f"when; leave it away"
            )
    if given.get("shuffle"):
        raise ValueError(
            "shuffle is the data set's: pass shuffle=True to TeachingDataset, and not to "
            "TeachingDataLoader"
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
            f"timeout must be a number of seconds (0 to wait for ever), got {timeout!r}"
        )
    if workers == 0:
        _check_without_workers(given)
    else:
        _whole(given, "prefetch_factor", 2, least=1)


def _check_callables(given: Mapping[str, Any]) -> None:
    for name in ("collate_fn", "worker_init_fn"):
        value = given.get(name)
        if value is not None and not callable(value):
            raise TypeError(
                f"{name} must be a function, or an object that can be called, got "
                f"{type(value).__name__} {value!r}"
            )


def _check_without_workers(given: Mapping[str, Any]) -> None:
    idle = ("timeout", "prefetch_factor", "persistent_workers", "multiprocessing_context")
    wrong = [f"{name}={given[name]!r}" for name in idle if given.get(name)]
    if given.get("prefetch_factor") == 0:
        wrong.append("prefetch_factor=0")
    if wrong:
        raise ValueError(
            f"{' and '.join(wrong)} need workers, got num_workers=0: leave away what is theirs, or "
            f"set num_workers"
        )


def _whole(given: Mapping[str, Any], name: str, default: int, least: int) -> int:
    value = given.get(name, default)
    if value is None and name == "prefetch_factor":
        return default
    if isinstance(value, bool) or not isinstance(value, Integral) or value < least:
        raise ValueError(f"{name} must be an integer of at least {least}, got {value!r}")
    return value


def check_has_batches(samples: int, batch_size: int, drop_last: bool, ranks: int = 1) -> None:
    """Refuse a loader whose every epoch is over before its first batch: a training over it would
    never end, or train nothing.

    Args:
        samples: Of a rank in an epoch.
        batch_size: Samples of a rank and batch.
        drop_last: Whether a short last batch is left out.
        ranks: That read different samples.

    Raises:
        ValueError: There is no batch.
    """
    if samples >= (batch_size if drop_last else 1):
        return
    raise ValueError(
        f"an epoch has no batch: {samples} samples for each of {ranks} "
        f"rank{'s' if ranks > 1 else ''}, batch_size {batch_size} and "
        f"drop_last={drop_last}; set drop_last to False, make the batch smaller, or give more "
        f"samples"
    )
