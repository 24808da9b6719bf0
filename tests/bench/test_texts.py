"""The documents of a text task with a target."""

import json

import pytest
import zstandard

from attent_stream.bench.prepare import prepare
from attent_stream.bench.settings import TargetText, TextData
from attent_stream.bench.texts import ALL, NOISE, documents_of
from attent_stream.corpus import CorpusError


@pytest.fixture
def folder(tmp_path):
    for name in "ab":
        for split in ("train", "valid"):
            lines = [
                json.dumps({"text": f"{name} {split} {i} " + f"w{i} " * 99}) for i in range(60)
            ]
            path = tmp_path / f"{name}.{split}.jsonl.zst"
            path.write_bytes(zstandard.compress("\n".join(lines).encode()))
    return tmp_path


def settings(**changes) -> TextData:
    return TextData(**{"streams": {"a": 0.01, "b": 0.01}, "held_out": 0.004, **changes})


def test_one_stream_of_all_sources_and_a_target_of_other_documents(folder):
    found = documents_of(
        settings(one_stream=True, target=TargetText(streams=["b"], documents=7)), folder
    )
    (texts,) = found.train.values()
    assert found.train.keys() == {ALL} and found.held_out.keys() == {"a", "b"}
    assert sorted(texts) == sorted(found.sources["a"] + found.sources["b"])
    assert all(text.startswith(f"{name} train") for name in "ab" for text in found.sources[name])
    places = [text[0] for text in texts]
    assert places != sorted(places) and sorted(places)[0] == "a"
    assert len(found.target["b"]) == 7 and not set(found.target["b"]) & set(texts)
    assert all(text.startswith("b valid") for text in found.held_out["b"])


def test_what_is_planted_is_a_source_of_its_own(folder):
    found = documents_of(settings(one_stream=True, noise=0.3), folder)
    assert found.sources.keys() == {"a", "b", NOISE}
    planted = sum(map(len, found.sources[NOISE]))
    assert planted / sum(map(len, found.train[ALL])) == pytest.approx(0.3, abs=0.05)
    plain = documents_of(settings(noise=0.3), folder)
    assert plain.train.keys() == {"a", "b"} and not plain.sources and not plain.target


def test_mistakes_are_named(folder):
    with pytest.raises(CorpusError, match="a task with a target needs a data folder"):
        documents_of(settings(one_stream=True), None)
    with pytest.raises(CorpusError, match="expected 99 more documents in b.train.jsonl.zst, got"):
        documents_of(settings(target=TargetText(streams=["b"], documents=99)), folder)
    with pytest.raises(ValueError, match=r"target.streams: expected some of a, b, got \['c'\]"):
        settings(target=TargetText(streams=["c"]))
    with pytest.raises(ValueError, match="target: expected streams and documents"):
        TargetText(streams=[])


def test_all_parts_are_written(folder, tmp_path):
    data = settings(
        one_stream=True, target=TargetText(streams=["b"], documents=9), seq_len=16, vocab_size=300
    )
    made = prepare(data, folder, tmp_path / "out")
    assert made.train.keys() == {ALL} and made.sources.keys() == {"a", "b"}
    assert made.target.keys() == {"b"} and made.held_out.keys() == {"a", "b"}
    assert all((path / "index.json").is_file() for path in made.target.values())
    assert prepare(data, folder, tmp_path / "out") == made
