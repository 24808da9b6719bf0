"""Columns as people have them, read by the collate functions. Oracle: what was written."""

import io
import pickle
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from streaming import MDSWriter, StreamingDataset

from attent_stream.corpus.batches import ImageCollator, TokenCollator
from attent_stream.launch.data import CutTokens
from attent_stream.train import main

IDS = np.random.default_rng(3).integers(0, 250, (24, 16))


def text(folder, column: str, encoding: str, made) -> str:
    with MDSWriter(
        out=str(folder / "train"), columns={column: encoding, "source": "str"}
    ) as writer:
        for row in IDS:
            writer.write({column: made(row), "source": "here"})
    return str(folder)


@pytest.mark.parametrize(
    ("column", "encoding", "made", "settings"),
    [
        ("tokens", "ndarray:uint16", lambda row: row.astype(np.uint16), {}),
        ("input_ids", "ndarray:int32", lambda row: row.astype(np.int32), {"column": "input_ids"}),
        ("tokens", "ndarray", lambda row: row.astype(np.int64), {"dtype": "int64"}),
        ("tokens", "bytes", lambda row: row.astype(np.int64).tobytes(), {"dtype": "int64"}),
        (
            "ids",
            "bytes",
            lambda row: row.astype(np.uint16).tobytes(),
            {"column": "ids", "dtype": "uint16"},
        ),
        ("tokens", "json", lambda row: row.tolist(), {}),
    ],
)
def test_text_columns_as_people_have_them(tmp_path, column, encoding, made, settings):
    samples = list(
        StreamingDataset(
            local=text(tmp_path, column, encoding, made), split="train", batch_size=1, shuffle=False
        )
    )
    collate = pickle.loads(pickle.dumps(TokenCollator(**settings)))
    assert collate(samples)["input_ids"].tolist() == IDS.tolist()
    cut = CutTokens(collate=collate, max_seq_len=5, **settings)
    assert cut(samples)["input_ids"].tolist() == IDS[:, :5].tolist()


@pytest.mark.parametrize(
    ("sample", "settings", "named"),
    [
        (
            {"input_ids": IDS[0]},
            {},
            "no column 'tokens', only 'input_ids' .*set column to one of these",
        ),
        ({"tokens": IDS[0].tobytes()}, {}, "column 'tokens' holds raw bytes: set dtype"),
        (
            {"tokens": b"123456789"},
            {"dtype": "int64"},
            "9 bytes in a sample, expected a multiple of 8 for dtype int64",
        ),
        (
            {"tokens": IDS[0].astype(np.float32)},
            {},
            "column 'tokens' holds float32 of shape .16,., expected token ids",
        ),
        ({"tokens": [0.5, 1.0]}, {}, "column 'tokens' holds list, expected token ids"),
        ({"tokens": [[1], [2, 3]]}, {}, "column 'tokens' holds list, expected token ids"),
        ({"tokens": IDS}, {}, "of shape .24, 16., expected token ids"),
        (
            {"tokens": "a text"},
            {},
            "column 'tokens' holds str, expected token ids .*attent-stream corpus text",
        ),
        ({"tokens": -IDS[0] - 1}, {}, "the negative token id -"),
        ({"tokens": np.array([70000], np.uint32).tobytes()}, {"dtype": "int16"}, None),
        (
            {"tokens": np.array([60000], np.uint16).tobytes()},
            {"dtype": "int16"},
            "negative token id -5536 if read as int16",
        ),
        (
            {"tokens": IDS[0].astype(np.uint16)},
            {"dtype": "int64"},
            "column 'tokens' holds uint16, not int64: remove dtype",
        ),
    ],
)
def test_what_is_no_token_ids_is_one_sentence(sample, settings, named):
    collate = TokenCollator(**settings)
    if named is None:  # nothing tells
        collate([sample])
        return
    for made in (collate, CutTokens(collate=collate, max_seq_len=4, **settings)):
        with pytest.raises(ValueError, match=named):
            made([sample])


@pytest.mark.parametrize("dtype", ["float32", "int65", "bytes", ""])
def test_a_dtype_of_no_whole_numbers_is_refused(dtype):
    with pytest.raises(ValueError, match="dtype must name whole numbers"):
        TokenCollator(dtype=dtype)


def picture(encoded: str) -> bytes:
    made = io.BytesIO()
    Image.fromarray(np.arange(16 * 16 * 3, dtype=np.uint8).reshape(16, 16, 3)).save(made, encoded)
    return made.getvalue()


def test_image_columns_as_people_have_them():
    shared = {"size": 16, "mean": (0.5, 0.5, 0.5), "std": (0.5, 0.5, 0.5)}
    data = picture("PNG")
    want, _ = ImageCollator(**shared)([{"image": data, "label": 3}])
    collate = ImageCollator(**shared, image_column="img", label_column="cls")
    for given in (data, Image.open(io.BytesIO(data)), np.asarray(Image.open(io.BytesIO(data)))):
        images, labels = collate([{"img": given, "cls": np.int32(3)}])
        assert torch.equal(images, want) and labels.tolist() == [3]
    for sample, named in (
        ({"image": data, "cls": 3}, "no column 'img', only 'image' .*set image_column"),
        ({"img": data, "label": 3}, "no column 'cls', only .*set label_column"),
        ({"img": data, "cls": "cat"}, "column 'cls' holds 'cat', expected a class number"),
        ({"img": data, "cls": 0.5}, "column 'cls' holds 0.5, expected a class number"),
        ({"img": "cat.png", "cls": 3}, "column 'img' holds a str, expected an image"),
    ):
        with pytest.raises(ValueError, match=named):
            collate([sample])


YAML = str(Path(__file__).parents[2] / "yamls" / "smoke_cpu.yaml")
RUN = [
    "seq_len=8",
    "vocab_size=256",
    "train_loader.num_workers=0",
    "max_duration=2ba",
    "eval_interval=2ba",
]


def run(folder: str, *overrides: str) -> int:
    code = main([YAML, f"data={folder}", *RUN, *overrides])
    if torch.distributed.is_initialized():
        torch.distributed.destroy_process_group()
    return code


def test_the_yaml_names_column_and_dtype(tmp_path, capsys):
    def as_bytes(row):
        return row.astype(np.int64).tobytes()

    folder = text(tmp_path, "input_ids", "bytes", as_bytes)
    both = [
        f"{loader}.collate={{column: input_ids, dtype: int64}}"
        for loader in ("train_loader", "eval_loader")
    ]
    assert run(folder, *both) == 0
    assert "trained 2 batches, 16 samples, 128 tokens" in capsys.readouterr().out
    for loader, given, named in (
        (
            "train_loader",
            "{}",
            "there is no column 'tokens', only 'input_ids' (bytes), 'source' (str): set column",
        ),
        ("eval_loader", "{column: input_ids}", "column 'input_ids' holds raw bytes: set dtype"),
        ("train_loader", "{column: source}", "column 'source' holds str, expected token ids"),
        ("train_loader", "{column: input_ids, dtype: float}", "dtype must name whole numbers"),
    ):
        assert run(folder, *both, f"{loader}.collate={given}") == 2
        assert f"error: {loader}.collate: {named}" in capsys.readouterr().err
    assert run(folder, *both, "eval_loader.drop_last=true", "device_eval_batch_size=25") == 2
    assert (
        "error: eval_loader: an epoch has no batch: 24 samples for each of 1 rank"
        in capsys.readouterr().err
    )
    assert run(folder, *both, "global_train_batch_size=25", "max_duration=20ba") == 2
    assert "error: train_loader: an epoch has no batch: 24 samples" in capsys.readouterr().err
