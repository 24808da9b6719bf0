"""Prompts and answers of a task."""

import json

import numpy as np
import pytest
import zstandard

from attent_stream.bench.chats import chats_of, sums
from attent_stream.bench.settings import ChatData
from attent_stream.corpus import CorpusError


def test_sums_are_right_and_different():
    made = sums(50, np.random.default_rng(1))
    assert len({one["prompt"] for one in made}) == 50
    for one in made:
        first, more, times = (int(word) for word in one["prompt"].split() if word.isdigit())
        assert one["answer"].endswith(f"#### {(first + more) * (1 + times)}")


def test_they_come_from_the_data_folder(tmp_path):
    for split, count in (("train", 30), ("test", 9)):
        lines = [json.dumps({"prompt": f"{split} {n}", "answer": str(n)}) for n in range(count)]
        path = tmp_path / f"math.{split}.jsonl.zst"
        path.write_bytes(zstandard.compress("\n".join(lines).encode()))
    settings = ChatData(source="math", samples=20, held_out=5, weights="smollm2")
    train, held = chats_of(settings, tmp_path)
    assert len({one["prompt"] for one in train}) == 20 and len(held) == 5
    assert all(one["prompt"].startswith("test ") for one in held)
    assert chats_of(settings, tmp_path) == (train, held)
    with pytest.raises(CorpusError, match="math.test.jsonl.zst has 9 records, 10 are asked for"):
        chats_of(ChatData(source="math", samples=20, held_out=10, weights="smollm2"), tmp_path)
    with pytest.raises(CorpusError, match="the data folder has no other.train.jsonl.zst"):
        chats_of(ChatData(source="other", samples=2, weights="smollm2"), tmp_path)


def test_without_a_folder_they_are_made_up():
    train, held = chats_of(ChatData(source="a", samples=8, held_out=3, weights="x"), None)
    assert len(train) == 8 and len(held) == 3
    assert not {one["prompt"] for one in train} & {one["prompt"] for one in held}


@pytest.mark.parametrize("given", [{"samples": 0}, {"held_out": 0}, {"layers": 0}])
def test_wrong_settings_are_refused(given):
    with pytest.raises(ValueError, match="expected samples, held_out and layers of at least 1"):
        ChatData(**{"source": "a", "samples": 8, "weights": "x", **given})
