"""How many samples an epoch reads of each shard of a weighted stream, and which ones."""

import numpy as np
from numpy.typing import NDArray

from attent_stream.order.permutation import below, keyed

# Granules of a stream up to which the draw is the same as Streaming's
EXACT_PICKS = 1 << 22


def shard_counts(
    samples: NDArray[np.int64],
    choose: int,
    granularity: int,
    seed: int,
    exact_picks: int = EXACT_PICKS,
) -> NDArray[np.int64]:
    """Draw how many samples an epoch reads of each shard of a stream.

    Up to ``exact_picks`` granules this equals ``streaming.base.sampling.get_sampling``, which
    shuffles all granules of a stream to draw some. Above, each shard gets its proportional share,
    randomly rounded up or down.

    Args:
        samples: Samples of each shard, int64 of shape (shards,).
        choose: Samples to read of the whole stream, 0 or more.
        granularity: Samples drawn at a time from one shard, 1 or more.
        seed: Seed of the draw.
        exact_picks: Granules up to which the draw equals Streaming's.

    Returns:
        int64 of shape (shards,) with the sum ``choose``; each shard is read ``choose // total``
        times in full, plus a remainder of at most its samples.
    """
    total = int(samples.sum())
    repeats, rest = divmod(choose, total)
    counts = samples * repeats
    if not rest:
        return counts
    picks = -(-samples // granularity)
    if int(picks.sum()) > exact_picks:
        return counts + np.minimum(shares(samples, rest, np.random.default_rng(seed)), samples)
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


def shares(sizes: NDArray[np.int64], rest: int, rng: np.random.Generator) -> NDArray[np.int64]:
    """Each one's proportional share, randomly rounded up or down.

    Args:
        sizes: Sizes, int64 of shape (n,).
        rest: Sum of the shares, 0 to the sum of sizes.
        rng: Random numbers.

    Returns:
        int64 of shape (n,), each at most its size.
    """
    order = rng.permutation(len(sizes))
    upto = np.cumsum(sizes[order])
    ends = np.floor(upto * (rest / int(upto[-1])) + rng.random()).astype(np.int64)
    ends[-1] = rest
    found = np.empty_like(sizes)
    found[order] = np.diff(np.minimum(ends, rest), prepend=0)
    return found


def partial_choice(
    index: NDArray[np.int64],
    samples: NDArray[np.int64],
    take: NDArray[np.int64],
    key: NDArray[np.uint64],
) -> NDArray[np.int64]:
    """Return the ``index``-th, ascending, of ``take`` samples drawn from a shard.

    Every sample is equally likely to be drawn: one sample is drawn from each of ``take`` even
    stretches of the shard, and all are rotated by a random offset.

    Args:
        index: int64 of shape (n,), each in ``[0, take)``.
        samples: Samples of the shard, same shape.
        take: Samples to draw, 1 to ``samples``, same shape.
        key: Key of the draw, same shape.

    Returns:
        int64 of shape (n,), each in ``[0, samples)``.
    """
    offset = below(keyed(key, 0), samples)
    # Picks at or after the border come first once rotated.
    border = (samples - offset) % samples
    stretch = ((border + 1) * take - 1) // samples  # the one that contains the border
    first = np.where(_pick(stretch, samples, take, key) >= border, stretch, stretch + 1)
    return (_pick((index + first) % take, samples, take, key) + offset) % samples


def _pick(
    stretch: NDArray, samples: NDArray, take: NDArray, key: NDArray[np.uint64]
) -> NDArray[np.int64]:
    begin, end = stretch * samples // take, (stretch + 1) * samples // take
    return begin + below(keyed(key, 1, stretch), end - begin)
