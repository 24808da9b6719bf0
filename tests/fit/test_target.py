"""The setting ``target``."""

import pytest

from attent_stream import AtteNT
from attent_stream.fit.target import Target, TargetStream, place


def test_it_may_be_a_path_a_mapping_or_a_list():
    assert Target.parse(None) is None
    one = TargetStream(remote="a/b")
    assert Target.parse("a/b") == Target.parse({"remote": "a/b"}) == Target.parse(["a/b"])
    assert Target.parse("a/b").streams == (one,)
    both = Target.parse([{"local": "a", "split": "x", "weight": 2}, {"remote": "b", "weight": 1}])
    assert [stream.weight for stream in both.streams] == [2, 1]


@pytest.mark.parametrize(
    ("value", "message"),
    [
        ([], "at least one stream, got none"),
        (3, "target must be a path, a mapping of remote, local, split, weight"),
        ({"remotes": "a"}, "target has no 'remotes', did you mean 'remote'"),
        ({}, "target needs remote or local"),
        ({"remote": 3}, "target.remote must be a path, got 3"),
        ({"remote": ""}, "target.remote must be a path, got ''"),
        ({"remote": "a", "weight": 0}, "target.weight must be a positive number, got 0"),
        ({"remote": "a", "weight": True}, "target.weight must be a positive number, got True"),
        ([{"remote": "a", "weight": 1}, "b"], "for all streams or for none"),
    ],
)
def test_mistakes_are_named(value, message):
    with pytest.raises(ValueError, match=message):
        AtteNT(target=value)


def test_a_score_of_a_target_needs_one():
    with pytest.raises(ValueError, match="score 'resemblance' needs a target"):
        AtteNT(score="resemblance")
    with pytest.raises(ValueError, match="fidelity must be full for score 'resemblance'"):
        AtteNT(target="a", score="resemblance", scoring={"fidelity": {"layers": 1}})
    with pytest.raises(ValueError, match="for losses of training forwards, and samples are chosen"):
        AtteNT(target="a", score="resemblance", remember="always")
    with pytest.raises(ValueError, match="for losses of training forwards, and samples are chosen"):
        AtteNT(target="a", remember="warmup")
    with pytest.raises(ValueError, match="remember.score must be of a training forward"):
        AtteNT(target="a", score="remembered", remember={"score": "resemblance"})
    with pytest.raises(ValueError, match="fidelity must not be auto for score 'alignment'"):
        AtteNT(target="a", score="alignment", scoring="auto")
    AtteNT(target="a", score="loss", remember="always")


def test_a_folder_is_read_where_it_is_and_a_store_is_cached(tmp_path, monkeypatch):
    monkeypatch.setattr("tempfile.tempdir", str(tmp_path))
    folder = tmp_path / "good" / "train"
    with pytest.raises(ValueError, match="expected an MDS data set with an index.json in"):
        TargetStream(remote=str(tmp_path / "good"), split="train").opened()
    folder.mkdir(parents=True)
    (folder / "index.json").write_text("{}")
    stream = TargetStream(remote=str(tmp_path / "good"), split="train").opened()
    assert (stream.remote, stream.local) == (None, str(tmp_path / "good"))
    stored = [TargetStream(remote="s3://bucket/good", split=split).opened() for split in ("a", "b")]
    assert {stream.remote for stream in stored} == {"s3://bucket/good"}
    assert len({stream.local for stream in stored}) == 2
    assert all(stream.local.startswith(str(tmp_path)) for stream in stored)
    assert TargetStream(remote="s3://bucket/good", local="x").opened().local == "x"


def test_places_are_compared_in_one_way_of_writing(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    assert place("a/b/", None) == place(str(tmp_path / "a"), "b") == place("./a/../a", "b")
    assert place("s3://bucket/a/", None) == place("s3://bucket", "a") != place("s3://bucket", "b")
