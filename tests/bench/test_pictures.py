"""Images of an image task."""

import io
import tarfile

import numpy as np
import pytest
import zstandard
from PIL import Image

from attent_stream.bench.pictures import SHAPES, chosen, draw_shapes, mislabelled, read_archive
from attent_stream.corpus import CorpusError


def test_wrong_labels_have_their_share():
    images = [("abc"[i % 3], bytes([i % 256])) for i in range(300)]
    out = mislabelled(images, 0.1, np.random.default_rng(0))
    assert sum(a[0] != b[0] for a, b in zip(images, out, strict=True)) == 30
    assert [data for _, data in out] == [data for _, data in images]


def test_an_archive_is_read_by_split_and_class(tmp_path):
    plain = io.BytesIO()
    with tarfile.open(fileobj=plain, mode="w") as archive:
        for name in ("top/train/cat/0.jpg", "top/train/dog/1.jpg", "top/test/cat/2.jpg"):
            member = tarfile.TarInfo(name)
            member.size = len(name)
            archive.addfile(member, io.BytesIO(name.encode()))
    path = tmp_path / "a.tar.zst"
    path.write_bytes(zstandard.compress(plain.getvalue()))
    assert read_archive(path) == {
        "train": {"cat": [b"top/train/cat/0.jpg"], "dog": [b"top/train/dog/1.jpg"]},
        "test": {"cat": [b"top/test/cat/2.jpg"]},
    }
    with pytest.raises(CorpusError, match="the data folder has no none.tar.zst"):
        read_archive(tmp_path / "none.tar.zst")


def test_as_many_images_of_each_class_are_chosen():
    classes = {label: [bytes([i]) for i in range(20)] for label in ("b", "a")}
    images = list(chosen(classes, 9, np.random.default_rng(0)))
    assert [label for label, _ in images] == ["a"] * 5 + ["b"] * 5 and len(set(images)) == 10


def test_shapes_are_drawn_alike_for_a_seed():
    made = draw_shapes(8, 12, np.random.default_rng(3))
    assert made == draw_shapes(8, 12, np.random.default_rng(3)) and set(made) == set(SHAPES)
    assert all(len(files) == 2 for files in made.values())
    assert Image.open(io.BytesIO(made["disc"][0])).size == (12, 12)
