"""Settings are checked when they are made."""

import pytest

from attent_stream.corpus import CorpusError, ImageCorpusSettings, Source, TextCorpusSettings
from attent_stream.corpus.settings import COMPRESSIONS, HASHES, mds_settings, parse_bytes


@pytest.mark.parametrize(
    ("text", "size"), [("8mb", 8 << 20), ("1.5kb", 1536), ("10", 10), (7, 7), ("2GB", 2 << 30)]
)
def test_parse_bytes(text, size):
    assert parse_bytes(text, "size") == size


def test_names_are_those_of_streaming():
    from streaming.base.compression import get_compressions
    from streaming.base.hashing import get_hashes

    ours = {f"{name}:{level}" for name, levels in COMPRESSIONS.items() for level in levels} | set(
        COMPRESSIONS
    )
    assert ours == get_compressions()
    assert set(HASHES) <= get_hashes()


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"sources": ()}, "at least one source"),
        ({"tokenizer": "x"}, "either tokenizer .* or vocab_size"),
        ({"vocab_size": None}, "either tokenizer .* or vocab_size"),
        ({"vocab_size": 256}, "vocab_size must be a whole number from 257, got 256"),
        ({"vocab_size": 0}, "vocab_size must be a whole number from 257, got 0"),
        ({"seq_len": 1}, "seq_len must be a whole number from 2, got 1"),
        ({"seq_len": True}, "seq_len must be a whole number"),
        ({"splits": (("train", 0.1),)}, "not 'train', got 'train'"),
        ({"splits": (("a/b", 0.1),)}, "got 'a/b'"),
        ({"splits": (("v", 1.5),)}, "fraction of split 'v' must be between 0 and 1, got 1.5"),
        ({"splits": (("v", 0.6), ("w", 0.5))}, "less than 1, got 1.1"),
        ({"splits": (("v", 0.1), ("v", 0.1))}, "different names"),
        ({"workers": 0}, "workers must be a whole number from 1, got 0"),
        ({"shard_size": "big"}, "a size like 500kb or 8mb, got 'big'"),
        ({"shard_size": "1kb"}, "shard_size must hold a sample"),
        ({"shard_size": "4gb"}, "less than 4gb"),
        ({"compression": "rar"}, "expected one of br, bz2, gz, snappy, zstd, got 'rar'"),
        ({"compression": "zstd:99"}, "got 'zstd:99'"),
        ({"hashes": ("crc",)}, "hashes: expected some of .*xxh64.*, got 'crc'"),
        ({"tokenizer_sample": "0"}, "tokenizer_sample must be a size"),
        ({"out": ""}, "out must be a folder"),
    ],
)
def test_settings_are_checked(changes, message):
    good = {"sources": (Source(name="a", paths=("a",)),), "out": "out", "vocab_size": 300}
    TextCorpusSettings(**good)
    with pytest.raises(CorpusError, match=message):
        TextCorpusSettings(**{**good, **changes})


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"folder": ""}, "folder must hold images, got ''"),
        ({"seed": -1}, "seed must be a whole number from 0, got -1"),
        ({"compression": "snappy:1"}, r"expected a level of snappy in \[\], got 'snappy:1'"),
    ],
)
def test_settings_of_images_are_checked(changes, message):
    good = {"folder": "in", "out": "out"}
    ImageCorpusSettings(**good, compression="gz:9")
    with pytest.raises(CorpusError, match=message):
        ImageCorpusSettings(**{**good, **changes})


def test_the_manifest_records_what_the_content_depends_on():
    sources = (Source(name="a", paths=("x", "y")),)
    settings = TextCorpusSettings(
        sources=sources, out="o", vocab_size=300, splits=(("v", 0.1),), hashes=("sha1", "md5")
    )
    recorded = settings.recorded()
    assert settings.split_names == ("v", "train")
    assert recorded["sources"] == {"a": ["x", "y"]} and recorded["splits"] == {"v": 0.1}
    assert recorded.items() >= mds_settings("8mb", None, ("md5", "sha1")).items()
    assert not recorded.keys() & {"out", "workers", "overwrite", "progress"}
