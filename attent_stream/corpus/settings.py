"""The checked settings of text and image corpora."""

import re
from collections.abc import Sequence
from dataclasses import dataclass
from typing import ClassVar

from attent_stream.corpus.errors import require
from attent_stream.corpus.sources import NAME, Source
from attent_stream.corpus.tokenizer import SMALLEST_VOCAB

REST = "train"

COMPRESSIONS = {
    "br": range(12),
    "bz2": range(1, 10),
    "gz": range(10),
    "snappy": range(0),
    "zstd": range(1, 23),
}
HASHES = (
    "blake2b",
    "blake2s",
    "md5",
    "sha1",
    "sha224",
    "sha256",
    "sha384",
    "sha512",
    "xxh32",
    "xxh64",
    "xxh128",
)
# The most bytes of a shard with one sample that are not the sample: offsets and the JSON header.
SHARD_HEAD = 4096
_UNITS = {"": 1, "b": 1, "kb": 1 << 10, "mb": 1 << 20, "gb": 1 << 30}


def parse_bytes(size: str | int, what: str) -> int:
    """Convert a size in b, kb, mb or gb, such as '8mb', to bytes."""
    match = re.fullmatch(r"(\d+(?:\.\d+)?)\s*([kmg]?b?)", str(size).strip().lower())
    number = int(float(match[1]) * _UNITS[match[2]]) if match and match[2] in _UNITS else 0
    require(number > 0, f"{what} must be a size like 500kb or 8mb, got {size!r}")
    return number


def check_shards(shard_size: str | int, compression: str | None, hashes: Sequence[str]) -> None:
    """Check the settings of MDS shards.

    Raises:
        CorpusError: The size is wrong or too large, or a name is unknown.
    """
    size = parse_bytes(shard_size, "shard_size")
    require(
        size < 1 << 32,
        f"shard_size must be less than 4gb (offsets are 32 bits), got {shard_size!r}",
    )
    if compression is not None:
        name, colon, level = compression.partition(":")
        require(
            name in COMPRESSIONS,
            f"compression: expected one of {', '.join(COMPRESSIONS)}, got {compression!r}",
        )
        levels = COMPRESSIONS[name]
        require(
            not colon or (level.isdecimal() and int(level) in levels),
            f"compression: expected a level of {name} in {list(levels)}, got {compression!r}",
        )
    for name in hashes:
        require(name in HASHES, f"hashes: expected some of {', '.join(HASHES)}, got {name!r}")


def check_whole(name: str, value: int, smallest: int) -> None:
    """Raise CorpusError unless the value is an int of at least `smallest`."""
    good = isinstance(value, int) and not isinstance(value, bool) and value >= smallest
    require(good, f"{name} must be a whole number from {smallest}, got {value!r}")


def mds_settings(shard_size: str | int, compression: str | None, hashes: Sequence[str]) -> dict:
    """Return the settings of shards as arguments of MDSWriter."""
    size = parse_bytes(shard_size, "shard_size")
    return {"size_limit": size, "compression": compression, "hashes": sorted(set(hashes))}


@dataclass(frozen=True, kw_only=True)
class StreamCorpusSettings:
    """The settings that corpora of text and of conversations share.

    Attributes:
        sources: One for each stream; see `sources_from`.
        out: A folder, or a URL that Streaming can upload to (s3://bucket/corpus).
        seq_len: Tokens of a sample.
        splits: ((name, fraction), ...) held out by a hash of the text; the rest is 'train'.
        workers: Number of tokenizing processes; the result does not depend on it.
        shard_size, compression, hashes: Of the MDS shards, as '8mb', 'zstd:3' and ('xxh64',).
        overwrite: Replace the corpus at `out`.
        progress: Show progress bars. None: only on a terminal.
        token_bytes: The most bytes that a token takes in a sample.
    """

    sources: tuple[Source, ...]
    out: str
    seq_len: int
    splits: tuple[tuple[str, float], ...] = ()
    workers: int = 1
    shard_size: str | int = "8mb"
    compression: str | None = None
    hashes: tuple[str, ...] = ()
    overwrite: bool = False
    progress: bool | None = None
    token_bytes: ClassVar[int]

    def __post_init__(self) -> None:
        names = [source.name for source in self.sources]
        require(bool(names), "at least one source is needed, got none")
        require(
            len(set(names)) == len(names), f"streams need different names, got {', '.join(names)}"
        )
        require(bool(self.out), f"out must be a folder or a URL, got {self.out!r}")
        check_whole("seq_len", self.seq_len, 2)
        self._check_splits()
        check_whole("workers", self.workers, 1)
        check_shards(self.shard_size, self.compression, self.hashes)
        smallest = self.token_bytes * self.seq_len + SHARD_HEAD
        size = parse_bytes(self.shard_size, "shard_size")
        require(
            size >= smallest,
            f"shard_size must hold a sample of {self.seq_len} tokens: {smallest} or more, got "
            f"{size}",
        )

    def _check_splits(self) -> None:
        names = [name for name, _ in self.splits]
        for name, fraction in self.splits:
            good = bool(NAME.fullmatch(name)) and name != REST
            require(
                good,
                f"a split's name is letters, digits, '.', '_' or '-' and not {REST!r}, got "
                f"{name!r}",
            )
            require(
                0 < fraction < 1,
                f"the fraction of split {name!r} must be between 0 and 1, got {fraction!r}",
            )
        require(
            len(set(names)) == len(names), f"splits need different names, got {', '.join(names)}"
        )
        total = sum(fraction for _, fraction in self.splits)
        require(total < 1, f"the fractions of the splits must add up to less than 1, got {total:g}")

    @property
    def split_names(self) -> tuple[str, ...]:
        """The held-out splits, then 'train', in the order of `split_of`."""
        return (*(name for name, _ in self.splits), REST)

    def recorded(self) -> dict:
        """Return the settings that the content depends on, for the manifest."""
        return {
            "sources": {source.name: list(source.paths) for source in self.sources},
            "splits": dict(self.splits),
            **mds_settings(self.shard_size, self.compression, self.hashes),
        }


@dataclass(frozen=True, kw_only=True)
class TextCorpusSettings(StreamCorpusSettings):
    """The settings of a text corpus, beside those of `StreamCorpusSettings`.

    Attributes:
        tokenizer: A local folder with a tokenizer.json, or such a file. None: train one.
        vocab_size: Size of the tokenizer to train, from 257; None with `tokenizer`.
        tokenizer_sample: Amount of text to train it on, such as '64mb', spread over all files.
        eos_token: The token after every document. None: the tokenizer's.
        text_key: The text's key (jsonl) or column (parquet).
        extensions: Endings of the files to read in folders, such as ('py', 'md'). (): jsonl, txt,
            parquet.
    """

    tokenizer: str | None = None
    vocab_size: int | None = None
    tokenizer_sample: str | int = "64mb"
    eos_token: str | None = None
    seq_len: int = 512
    text_key: str = "text"
    extensions: tuple[str, ...] = ()
    token_bytes: ClassVar[int] = 4

    def __post_init__(self) -> None:
        super().__post_init__()
        require(
            (self.tokenizer is None) != (self.vocab_size is None),
            "give either tokenizer (a local one) or vocab_size (to train one), "
            f"got tokenizer={self.tokenizer!r} and vocab_size={self.vocab_size!r}",
        )
        check_whole(
            "vocab_size",
            SMALLEST_VOCAB if self.vocab_size is None else self.vocab_size,
            SMALLEST_VOCAB,
        )
        parse_bytes(self.tokenizer_sample, "tokenizer_sample")

    def recorded(self) -> dict:
        """See `StreamCorpusSettings`."""
        return {
            **super().recorded(),
            "text_key": self.text_key,
            "extensions": list(self.extensions),
            "tokenizer": self.tokenizer,
            "vocab_size": self.vocab_size,
            "tokenizer_sample": self.tokenizer_sample,
        }


@dataclass(frozen=True, kw_only=True)
class ChatCorpusSettings(StreamCorpusSettings):
    """The settings of a corpus of conversations, beside those of `StreamCorpusSettings`.

    Its files are .jsonl; see `messages_of`. Samples longer than `seq_len` are cut.

    Attributes:
        tokenizer: A local folder that transformers' AutoTokenizer reads.
    """

    tokenizer: str
    seq_len: int = 1024
    token_bytes: ClassVar[int] = 8  # with its label

    def __post_init__(self) -> None:
        super().__post_init__()
        require(bool(self.tokenizer), f"tokenizer must be a folder, got {self.tokenizer!r}")

    def recorded(self) -> dict:
        """See `StreamCorpusSettings`."""
        return {**super().recorded(), "tokenizer": self.tokenizer}


@dataclass(frozen=True, kw_only=True)
class ImageCorpusSettings:
    """The settings of an image corpus.

    Attributes:
        folder: Holds CLASS/*.jpg|jpeg|png, or train, test, val, valid or validation with those.
        out: A folder, or a URL that Streaming can upload to.
        seed: Seed of the order of images, which mixes the classes of a shard.
        workers: Number of processes that check images; the result does not depend on it.
        shard_size: Of the MDS shards; raised to the largest image.
        compression, hashes, overwrite, progress: As in `TextCorpusSettings`.
    """

    folder: str
    out: str
    seed: int = 17
    workers: int = 1
    shard_size: str | int = "32mb"
    compression: str | None = None
    hashes: tuple[str, ...] = ()
    overwrite: bool = False
    progress: bool | None = None

    def __post_init__(self) -> None:
        require(bool(self.folder), f"folder must hold images, got {self.folder!r}")
        require(bool(self.out), f"out must be a folder or a URL, got {self.out!r}")
        check_whole("seed", self.seed, 0)
        check_whole("workers", self.workers, 1)
        check_shards(self.shard_size, self.compression, self.hashes)
