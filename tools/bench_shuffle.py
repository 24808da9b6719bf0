"""Compare shuffling quality and downloads of Streaming's shuffles and the lazy order, simulated.

    python tools/bench_shuffle.py [--nodes 4] [--shards 1024] [--block 262144]

Each node reads its share of the order in sequence, from shards of 4,096 samples:

- ``in_flight``: a node's shards between their first and last sample, mean and maximum;
- ``gets_a_shard``: downloads per shard with an LRU cache of ``block`` samples, and of 1.5 blocks;
- ``burst``: the most shards first needed within 4,096 samples;
- ``reach``: mean distance in the order between neighbours in a shard, relative to the block size
  (1/3 for a random order of each block);
- ``pairs``: pairs of samples of one shard among 512 consecutive samples, relative to a random order
  of the node's samples;
- ``ks``: mean Kolmogorov distance between the positions of a shard's samples and a uniform spread.

The last line is a JSON object of these by order.
"""

import argparse
import json
import warnings
from collections import OrderedDict

import numpy as np
from numpy.typing import NDArray
from streaming.base.world import World
from synthetic import SyntheticDataset

from attent_stream.order.lazy_order import lazy_order
from attent_stream.order.open_order import layouts
from attent_stream.order.streaming_order import generate_rows

SHARD, BATCH, NEAR = 4096, 8, 512


def node_orders(kind: str, samples: int, nodes: int, block: int) -> list[NDArray[np.int64]]:
    """Return the sample ids that each node reads, in sequence."""
    algo = "py1e" if kind == "lazy" else kind
    data = SyntheticDataset(
        samples,
        shard=SHARD,
        canonical_nodes=nodes,
        batch_size=BATCH,
        shuffle_algo=algo,
        shuffle_block_size=block,
    )
    world = World(nodes, 1, 1, 0)
    if kind != "lazy":
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            rows = generate_rows(data, world, 0)
    else:
        order = lazy_order(data, *layouts(data, world), 0)
        rows = np.concatenate(
            [order.rows_of_rank(np.arange(order.full), rank) for rank in range(nodes)], axis=1
        )
    return [rows[:, node * BATCH : (node + 1) * BATCH].reshape(-1) for node in range(nodes)]


def downloads(shards: NDArray[np.int64], cache: int) -> int:
    """Count the downloads of a reader with an LRU cache of ``cache`` shards."""
    held, fetched = OrderedDict(), 0
    for shard in shards.tolist():
        if shard in held:
            held.move_to_end(shard)
            continue
        fetched += 1
        held[shard] = None
        if len(held) > cache:
            held.popitem(last=False)
    return fetched


def measure(ids: NDArray[np.int64], block: int) -> dict[str, float]:
    """Measure a node's order."""
    shards = ids // SHARD
    known, first, inverse = np.unique(shards, return_index=True, return_inverse=True)
    last = len(ids) - 1 - np.unique(shards[::-1], return_index=True)[1]
    change = np.zeros(len(ids) + 1, np.int64)
    np.add.at(change, first, 1)
    np.add.at(change, last + 1, -1)
    flying = np.cumsum(change[:-1])
    begun = np.cumsum(np.bincount(first, minlength=len(ids)))
    place = np.full(int(ids.max()) + 2, -1)
    place[ids] = np.arange(len(ids))
    own = np.sort(ids)
    near = own[:-1][(np.diff(own) == 1) & (own[:-1] // SHARD == own[1:] // SHARD)]
    reach = np.abs(place[near + 1] - place[near]).mean() / block
    groups = shards[: len(shards) // NEAR * NEAR].reshape(-1, NEAR)
    same = sum(int((np.bincount(group - group.min()) ** 2).sum()) - NEAR for group in groups) / len(
        groups
    )
    share = np.bincount(inverse) / len(ids)
    expected = NEAR * (NEAR - 1) * float((share**2).sum())
    distances = []
    for number in range(len(known)):
        spread = np.flatnonzero(inverse == number)
        if len(spread) > 1:
            at = (spread - spread[0]) / max(1, spread[-1] - spread[0])
            distances.append(np.abs(at - np.linspace(0, 1, len(at))).max())
    held = block // SHARD
    return {
        "in_flight_mean": flying.mean(),
        "in_flight_most": flying.max(),
        "gets_a_shard": downloads(shards, held) / len(known),
        "gets_a_shard_larger_cache": downloads(shards, held * 3 // 2) / len(known),
        "burst": int((begun[SHARD:] - begun[:-SHARD]).max()),
        "reach": reach,
        "pairs": same / expected,
        "ks": float(np.mean(distances)),
    }


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--nodes", type=int, default=4)
    parser.add_argument("--shards", type=int, default=1024)
    parser.add_argument("--block", type=int, default=1 << 18)
    options = parser.parse_args()
    result = {}
    for kind in ("py1br", "py1e", "lazy"):
        orders = node_orders(kind, options.shards * SHARD, options.nodes, options.block)
        each = [measure(ids, options.block) for ids in orders]
        nodes_a_shard = sum(len(np.unique(ids // SHARD)) for ids in orders) / options.shards
        result[kind] = {
            name: round(float(np.mean([node[name] for node in each])), 3) for name in each[0]
        }
        result[kind]["nodes_a_shard"] = round(nodes_a_shard, 4)
        print(
            f"{kind:6}",
            "  ".join(f"{name} {value:8.3f}" for name, value in result[kind].items()),
            flush=True,
        )
    print(json.dumps(result))


if __name__ == "__main__":
    main()
