"""Documents and files for the corpus tests."""

import gzip
import json

import numpy as np
import zstandard

WORDS = [
    "stream",
    "window",
    "teacher",
    "learner",
    "score",
    "keep",
    "lesson",
    "shard",
    "Größe",
    "λ",
    "  ",
    "\n",
    "\t",
]


def documents(count, seed=3):
    """Random texts of 1 to 60 words, some not ASCII."""
    rng = np.random.default_rng([seed, count])
    return [" ".join(rng.choice(WORDS, size=rng.integers(1, 60))) + f" {i}" for i in range(count)]


def write_jsonl(path, texts, key="text"):
    """One JSON record a line, compressed by the name's ending."""
    data = "".join(json.dumps({key: text, "id": i}) + "\n" for i, text in enumerate(texts)).encode()
    if path.name.endswith(".gz"):
        data = gzip.compress(data)
    elif path.name.endswith(".zst"):
        # Two frames, as concatenated files have.
        half = len(data) // 2
        compressor = zstandard.ZstdCompressor()
        data = compressor.compress(data[:half]) + compressor.compress(data[half:])
    path.write_bytes(data)
    return path


def read_tokens(folder):
    """All samples of a part, by stock Streaming, in order: (n, seq_len)."""
    from streaming import StreamingDataset

    dataset = StreamingDataset(local=str(folder), shuffle=False, batch_size=1)
    return np.stack([dataset[i]["tokens"] for i in range(len(dataset))])
