"""The states of the global random number generators, for a resume within an epoch.

Composer saves these states too. It restores them only at the start of an epoch if the data set
resumes by itself, so a model with dropout would see different noise after a resume.
"""

import logging
import random
from typing import Any

import numpy as np
import torch
from composer.utils import dist

log = logging.getLogger(__name__)
_KEY, _WORDS = 624, 625  # Mersenne Twister: length of the key; Python appends the position


def random_state() -> torch.Tensor:
    """Return the states of Python's, numpy's and torch's (CPU, current GPU) global generators.

    Returns:
        uint8 of shape (n,); n depends on the machine.
    """
    _, words, gauss = random.getstate()
    state: Any = np.random.get_state(legacy=True)  # noqa: NPY002 (saved, not drawn from)
    _, key, position, has_gauss, cached = state
    arrays = [
        np.array(words, np.uint32),
        np.array([np.nan if gauss is None else gauss, has_gauss, cached, position], np.float64),
        key.astype(np.uint32),
    ]
    states = [torch.from_numpy(np.frombuffer(array.tobytes(), np.uint8).copy()) for array in arrays]
    states.append(torch.get_rng_state())
    if torch.cuda.is_available():
        states.append(torch.cuda.get_rng_state())
    return torch.cat(states)


def set_random_state(state: torch.Tensor) -> None:
    """Set the generators to a state from ``random_state``.

    Raises:
        ValueError: The state has another size, so it is from another kind of machine.
    """
    expected = len(random_state())
    if state.shape != (expected,):
        raise ValueError(
            f"expected a random number state of shape ({expected},), got {tuple(state.shape)}"
        )
    data = state.cpu().contiguous()
    sizes = [4 * _WORDS, 8 * 4, 4 * _KEY]
    words, rest, key = (array.numpy().tobytes() for array in data[: sum(sizes)].split(sizes))
    gauss, has_gauss, cached, position = np.frombuffer(rest, np.float64)
    python = tuple(np.frombuffer(words, np.uint32).tolist())
    random.setstate((3, python, None if np.isnan(gauss) else float(gauss)))
    key = np.frombuffer(key, np.uint32)
    np.random.set_state(("MT19937", key, int(position), int(has_gauss), float(cached)))  # noqa: NPY002
    cpu = len(torch.get_rng_state())
    torch.set_rng_state(data[sum(sizes) : sum(sizes) + cpu].clone())
    if torch.cuda.is_available():
        torch.cuda.set_rng_state(data[sum(sizes) + cpu :].clone())


def restore_ranks(states: torch.Tensor) -> None:
    """Restore this rank's generators from a checkpoint, if it has as many ranks of the same kind.

    Args:
        states: The states of all ranks, uint8 of shape (ranks, n).
    """
    expected = (dist.get_world_size(), len(random_state()))
    if states.shape == expected:
        set_random_state(states[dist.get_global_rank()])
    else:
        log.info(
            "The checkpoint has the random number states of %d ranks or of other devices. "
            "Random numbers (dropout) start anew on these %d ranks.",
            len(states),
            dist.get_world_size(),
        )
