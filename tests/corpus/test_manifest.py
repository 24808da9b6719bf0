"""The manifest: what is written is read back, and mistakes in it are refused."""

import json

import pytest

from attent_stream.corpus import CorpusError, Manifest, Part
from attent_stream.corpus.manifest import BadRecords


def manifest_for():
    return Manifest(
        kind="text",
        parts=(
            Part(
                stream="a",
                split="train",
                path="a/train",
                documents=3,
                samples=2,
                tokens=70,
                dropped_tokens=6,
            ),
        ),
        bad=(BadRecords(stream="a", reason="empty text", count=1, first=("f:1",)),),
        tokenizer="tokenizer",
        seq_len=32,
        dtype="uint16",
        settings={"text_key": "text"},
    )


def test_manifest_round_trip(tmp_path):
    manifest = manifest_for()
    assert Manifest.load(manifest.save(tmp_path)) == Manifest.load(tmp_path) == manifest
    assert (
        manifest.total("tokens") == manifest.total("tokens", "train") == 70
        and manifest.total("tokens", "x") == 0
    )


@pytest.mark.parametrize(
    "path", ["/etc", "../x", "a/../../x", "", ".", "C:\\x", "a\\..\\b", "s3://b/x", 5, None]
)
@pytest.mark.parametrize("where", ["part", "tokenizer"])
def test_manifest_paths_stay_inside(tmp_path, where, path):
    if where == "tokenizer" and path is None:
        pytest.skip("no tokenizer is allowed")
    file = manifest_for().save(tmp_path)
    value = json.loads(file.read_text())
    (value["parts"][0] if where == "part" else value)[
        "path" if where == "part" else "tokenizer"
    ] = path
    file.write_text(json.dumps(value))
    with pytest.raises(CorpusError, match="must be a relative path inside the corpus, got"):
        Manifest.load(tmp_path)


@pytest.mark.parametrize(
    ("edit", "message"),
    [
        (lambda v: v.update(format=9), "format 1 expected, got 9"),
        (lambda v: v.update(kind="video"), "one of text, chat, images, got 'video'"),
        (lambda v: v.update(evil=1), r"unknown key\(s\) evil"),
        (lambda v: v.pop("parts"), "a list of Part expected"),
        (lambda v: v["parts"][0].pop("samples"), "samples"),
        (
            lambda v: v["parts"][0].update(samples=-1),
            "samples of part 'a/train' must be a whole number from 0, got -1",
        ),
        (lambda v: v["parts"].append("x"), "not a manifest"),
    ],
)
def test_manifest_is_checked(tmp_path, edit, message):
    file = manifest_for().save(tmp_path)
    value = json.loads(file.read_text())
    edit(value)
    file.write_text(json.dumps(value))
    with pytest.raises(CorpusError, match=message):
        Manifest.load(file)


def test_no_manifest(tmp_path):
    with pytest.raises(CorpusError, match="manifest.json is missing"):
        Manifest.load(tmp_path)
    (tmp_path / "manifest.json").write_text("{")
    with pytest.raises(CorpusError, match="is not a manifest of this version"):
        Manifest.load(tmp_path)
