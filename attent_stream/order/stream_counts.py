"""How often an epoch reads each shard and each sample of a weighted stream, and which samples a
partial repeat takes.
"""

import numpy as np
from numpy.typing import NDArray

from attent_stream.order.permutation import below, keyed

# Granules of a stream up to which the draw of its shards is Streaming's own, number by number
EXACT_PICKS = 1 << 22


def shard_counts(
    samples: NDArray[np.int64],
    choose: int,
    granularity: int,
    seed: int,
    exact_picks: int = EXACT_PICKS,
) -> NDArray[np.int64]:
    """Samples that an epoch reads of each shard of a stream.

    Up to ``exact_picks`` granules this is ``streaming.base.sampling.get_sampling``, which shuffles
    all granules of a stream to draw some. Beyond, each shard gets its proportional share, rounded
    up or down at random, so that the sum is ``choose``.

    Args:
        samples: Of each shard, int64 of shape (shards,).
        choose: Samples of the whole stream, 0 or more.
        granularity: Samples drawn at a time of one shard, 1 or more.
        seed: Of the draw.
        exact_picks: See above.

    Returns:
        int64 of shape (shards,), their sum is ``choose``; each is a multiple of the shard's samples
        plus less than that.
    """
    total = int(samples.sum())
    repeats, rest = divmod(choose, total)
    counts = samples * repeats
    if not rest:
        return counts
    picks = -(-samples // granularity)
    if int(picks.sum()) > exact_picks:
        return counts + _shares(samples, rest, seed)
    ends = np.cumsum(picks)
    sizes = np.full(int(ends[-1]), granularity, np.int64)
    sizes[ends[picks > 0] - 1] = (samples - (picks - 1) * granularity)[picks > 0]
    order = np.random.default_rng(seed).permutation(len(sizes))
    drawn = np.cumsum(sizes[order])
    last = int(np.searchsorted(drawn, rest))
    shards = np.repeat(np.arange(len(samples)), picks)[order[: last + 1]]
    taken = sizes[order[: last + 1]]
    taken[-1] -= drawn[last] - rest
    np.add.at(counts, shards, taken)
    return counts


def _shares(samples: NDArray[np.int64], rest: int, seed: int) -> NDArray[np.int64]:
    rng = np.random.default_rng(seed)
    order = rng.permutation(len(samples))
    share = rest / int(samples.sum())
    ends = np.floor(np.cumsum(samples[order]) * share + rng.random()).astype(np.int64)
    ends[-1] = rest
    counts = np.empty_like(samples)
    counts[order] = np.diff(np.minimum(ends, rest), prepend=0)
    return np.minimum(counts, samples)


def partial_choice(
    index: NDArray[np.int64],
    samples: NDArray[np.int64],
    take: NDArray[np.int64],
    key: NDArray[np.uint64],
) -> NDArray[np.int64]:
    """The ``index``-th of ``take`` samples chosen of a shard's, ascending; each is as likely to be
    among them as any other.

    One is drawn of each of ``take`` even parts of the shard, and the whole is turned by a random
    number of samples.

    Args:
        index: int64 of shape (n,), each in ``[0, take)``.
        samples: Of the shard, same shape.
        take: 1 to ``samples``, same shape.
        key: One a choice, same shape.

    Returns:
        int64 of shape (n,), in ``[0, samples)``.
    """
    turn = below(keyed(key, 0), samples)
    # What is picked at or behind this is at the front once it is turned
    border = (samples - turn) % samples
    part = ((border + 1) * take - 1) // samples  # the part that holds it
    first = np.where(_pick(part, samples, take, key) >= border, part, part + 1)
    return (_pick((index + first) % take, samples, take, key) + turn) % samples


def _pick(
    part: NDArray, samples: NDArray, take: NDArray, key: NDArray[np.uint64]
) -> NDArray[np.int64]:
    begin, end = part * samples // take, (part + 1) * samples // take
    return begin + below(keyed(key, 1, part), end - begin)
