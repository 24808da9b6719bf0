"""The image corpus."""

import pytest
from image_files import fill, image_bytes
from streaming import StreamingDataset

from attent_stream.corpus import CorpusError, ImageCorpusSettings, Manifest, write_image_corpus


def read(folder, classes):
    dataset = StreamingDataset(local=str(folder), shuffle=False, batch_size=1)
    return [(classes[dataset[i]["label"]], dataset[i]["image"]) for i in range(len(dataset))]


def settings_for(tmp_path, **changes):
    return ImageCorpusSettings(
        **{"folder": str(tmp_path / "in"), "out": str(tmp_path / "out"), **changes}
    )


def test_class_folders(tmp_path):
    written = fill(tmp_path / "in", ["dog", "cat"], 12)
    manifest = write_image_corpus(settings_for(tmp_path))
    assert manifest == Manifest.load(tmp_path / "out") and manifest.classes == ("cat", "dog")
    got = read(tmp_path / "out" / "train", manifest.classes)
    assert len(got) == 24 and set(got) == written
    assert [name for name, _ in got] != sorted(name for name, _ in got)  # mixed


def test_splits_share_labels_and_workers_change_nothing(tmp_path):
    train = fill(tmp_path / "in" / "train", ["b", "c"], 6)
    test = fill(tmp_path / "in" / "test", ["a", "c"], 3, seed=1)
    one = write_image_corpus(
        settings_for(tmp_path, shard_size="2kb", compression="zstd", hashes=("xxh64",))
    )
    two = write_image_corpus(
        settings_for(
            tmp_path,
            shard_size="2kb",
            compression="zstd",
            hashes=("xxh64",),
            workers=2,
            out=f"{tmp_path}/2",
        )
    )
    assert one == two and one.classes == ("a", "b", "c")
    assert [(p.split, p.samples) for p in one.parts] == [("train", 12), ("test", 6)]
    assert set(read(tmp_path / "out" / "train", one.classes)) == train
    assert set(read(tmp_path / "out" / "test", one.classes)) == test
    for file in (p for p in (tmp_path / "2").rglob("*.zstd")):
        assert (
            file.read_bytes() == (tmp_path / "out" / file.relative_to(tmp_path / "2")).read_bytes()
        )


def test_bad_images_are_counted(tmp_path):
    written = fill(tmp_path / "in", ["a", "b"], 6)
    folder = tmp_path / "in" / "a"
    # Cut: PIL's verify() would pass it
    (folder / "x.jpg").write_bytes(image_bytes(1, size=(64, 64))[:-500])
    (folder / "y.png").write_bytes(b"no image")
    (folder / "z.jpg").write_bytes(image_bytes(2, "GIF"))
    (folder / "notes.txt").write_text("no image by its name")
    manifest = write_image_corpus(settings_for(tmp_path))
    assert set(read(tmp_path / "out" / "train", manifest.classes)) == written
    assert {(bad.reason, bad.count) for bad in manifest.bad} == {
        ("corrupt image", 1),
        ("not a JPEG or PNG", 2),
    }
    named = {place for bad in manifest.bad for place in bad.first}
    assert named == {str(folder / name) for name in ("x.jpg", "y.png", "z.jpg")}


def test_mostly_bad_images(tmp_path):
    fill(tmp_path / "in", ["a"], 2)
    for i in range(3):
        (tmp_path / "in" / "a" / f"bad{i}.jpg").write_bytes(b"")
    with pytest.raises(CorpusError, match="stream 'images/train': 3 of 5 records are bad"):
        write_image_corpus(settings_for(tmp_path))
    assert [p.name for p in tmp_path.iterdir()] == ["in"]


def test_an_image_larger_than_a_shard(tmp_path):
    written = fill(tmp_path / "in", ["a"], 1)
    data = image_bytes(5, "PNG", size=(60, 60))
    (tmp_path / "in" / "a" / "large.png").write_bytes(data)
    manifest = write_image_corpus(settings_for(tmp_path, shard_size="1kb"))
    assert set(read(tmp_path / "out" / "train", manifest.classes)) == written | {("a", data)}


def test_no_images(tmp_path):
    with pytest.raises(CorpusError, match="no such folder"):
        write_image_corpus(settings_for(tmp_path))
    (tmp_path / "in").mkdir()
    with pytest.raises(CorpusError, match=r"no CLASS/\*.jpg, \*.jpeg, \*.png under"):
        write_image_corpus(settings_for(tmp_path))
    fill(tmp_path / "in" / "train", ["a"], 1)
    (tmp_path / "in" / "test").mkdir()
    with pytest.raises(CorpusError, match="under .*in/test"):
        write_image_corpus(settings_for(tmp_path))
