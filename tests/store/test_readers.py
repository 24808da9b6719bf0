"""Readers of shards against Streaming's own."""

from corpora import write_ids
from streaming import MDSWriter, Stream
from streaming.base.world import World

from attent_stream.store.readers import hand_on, read_shards


def test_readers_are_streamings(tmp_path):
    write_ids(tmp_path / "plain", 60)
    with MDSWriter(
        out=str(tmp_path / "zip"),
        columns={"id": "int"},
        compression="zstd",
        hashes=["sha1"],
        size_limit=600,
    ) as out:
        for number in range(99):
            out.write({"id": number})
    for name in ("plain", "zip"):
        stream, world = Stream(local=str(tmp_path / name), split=""), World(1, 1, 1, 0)
        stock, ours = stream.get_shards(world, False), read_shards(stream, world, False)
        assert len(ours) > 1 and [vars(reader) for reader in ours] == [
            vars(reader) for reader in stock
        ]
        hand_on(stream, ours)
        assert (
            stream.get_shards(world, False) is ours and stream.get_shards(world, False) is not ours
        )
