"""Documents of a text task."""

import json

import numpy as np
import pytest
import zstandard

from attent_stream.bench.documents import clean, read_jsonl, spoilt


def test_planted_noise_has_its_share_and_copies_go():
    rng = np.random.default_rng(3)
    documents = [
        " ".join(f"w{rng.integers(500)}" for _ in range(rng.integers(40, 200))) for _ in range(200)
    ]
    marked = list(spoilt(documents, 0.2, np.random.default_rng(0)))
    out = [text for text, _ in marked]
    good = set(documents)
    planted = sum(len(text) for text in out if text not in good)
    assert planted / sum(map(len, out)) == pytest.approx(0.2, abs=0.01)
    assert [text for text, noise in marked if not noise] == documents
    copies = [documents[0], "Another start. " + documents[0], "short", documents[1]]
    assert list(clean(copies)) == [documents[0], documents[1]]


def test_documents_are_drawn_from_all_of_a_file(tmp_path):
    path = tmp_path / "a.jsonl.zst"
    texts = [f"{i:03d}" + "x" * 97 for i in range(200)]
    path.write_bytes(
        zstandard.compress("".join(json.dumps({"text": t}) + "\n" for t in texts).encode())
    )
    drawn = read_jsonl(path, 0.005, np.random.default_rng(0))
    assert len(drawn) == 50 and set(drawn) <= set(texts) and max(drawn) > texts[150]
    assert drawn == read_jsonl(path, 0.005, np.random.default_rng(0))
    assert all(
        len(text) == 10 for text in read_jsonl(path, 0.001, np.random.default_rng(0), longest=10)
    )
