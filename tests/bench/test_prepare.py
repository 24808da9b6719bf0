"""The data of a task."""

import json

import pytest
import zstandard

from attent_stream.bench.prepare import DRAWN, digest, prepare
from attent_stream.bench.settings import ImageData, TextData
from attent_stream.corpus import CorpusError


def test_a_digest_ignores_the_order_of_keys():
    assert digest({"a": 1, "b": 2}) == digest({"b": 2, "a": 1}) != digest({"a": 2, "b": 2})
    assert len(digest([])) == 16


def test_images_are_made_once(tmp_path):
    settings = ImageData(images=16, held_out=8, size=12)
    made = prepare(settings, None, tmp_path)
    assert (made.samples, made.classes, made.source, made.tokenizer) == (16, 4, DRAWN, None)
    (kept,) = made.held_out.values()
    (kept / "index.json").write_text("kept")
    assert prepare(settings, None, tmp_path) == made and (kept / "index.json").read_text() == "kept"
    other = prepare(ImageData(images=16, held_out=8, size=12, seed=3), None, tmp_path)
    assert other.fingerprint != made.fingerprint


def test_text_comes_from_the_data_folder(tmp_path):
    data = tmp_path / "data"
    data.mkdir()
    for split in ("train", "valid"):
        lines = [json.dumps({"text": f"{split} word{i} " * 20}) for i in range(60)]
        (data / f"a.{split}.jsonl.zst").write_bytes(zstandard.compress("\n".join(lines).encode()))
    settings = TextData(streams={"a": 1.0}, seq_len=16, vocab_size=300)
    made = prepare(settings, data, tmp_path / "out")
    assert made.train.keys() == made.held_out.keys() == {"a"} and made.samples > 16
    assert (made.tokenizer / "tokenizer.json").is_file() and made.source == "the data folder"
    with pytest.raises(CorpusError, match="the data folder has no b.train.jsonl.zst"):
        prepare(TextData(streams={"b": 1.0}), data, tmp_path / "out")
