"""Packed text that is collated as llm-foundry does: with counts of each row's tokens in lists."""

import numpy as np
import pytest
import torch
from fits import LENGTH, VOCAB, fit, make_loader, make_rotary
from streaming import MDSWriter

from attent_stream import AtteNT
from attent_stream.arrange.cutting import Packed, collate_to_cut
from attent_stream.base.errors import ScoreError
from attent_stream.corpus.batches import TokenCollator
from attent_stream.launch.foundry_collate import PackedText

COUNTS = {"total_tokens", "loss_generating_tokens"}


def as_theirs(samples: list) -> dict:
    """Pads, and has a list of counts beside the tensors."""
    rows = [torch.as_tensor(np.asarray(row, np.int64)) for row in samples]
    ids = torch.nn.utils.rnn.pad_sequence(rows, batch_first=True)
    counts = {name: [len(row) for row in rows] for name in COUNTS}
    return {"input_ids": ids, "labels": ids.clone(), **counts}


def of_tokens(samples: list) -> dict:
    return as_theirs([sample["tokens"] for sample in samples])


class Taught(PackedText):
    """Of samples as they lie in the shards."""

    def to_cut(self, samples: list) -> dict:
        given = [sample["tokens"] for sample in samples]
        return PackedText(as_theirs).to_cut(given)


def test_only_what_can_be_cut_is_left_to_cut():
    collate, samples = PackedText(as_theirs), [torch.arange(8), torch.arange(8)]
    assert isinstance(collate, Packed) and collate.packed
    assert collate(samples).keys() == {"input_ids", "labels"} | COUNTS
    assert collate_to_cut(collate)(samples).keys() == {"input_ids", "labels"}
    assert collate_to_cut(as_theirs) is as_theirs


def test_samples_that_would_be_padded_are_not_cut():
    with pytest.raises(ScoreError, match="packed samples of one length, got 4 to 8 tokens"):
        PackedText(as_theirs).to_cut([torch.arange(8), torch.arange(4)])


def written(folder, lengths) -> str:
    rng = np.random.default_rng(4)
    with MDSWriter(out=str(folder), columns={"tokens": "ndarray:uint16"}) as writer:
        for length in lengths:
            writer.write({"tokens": rng.integers(0, VOCAB, length).astype(np.uint16)})
    return str(folder)


def trained(folder: str, collate) -> tuple:
    loader = make_loader(folder, window=8, collate_fn=collate)
    watch, _, _ = fit(loader, [AtteNT()], make_rotary())
    return watch, {len(row) for rows in watch.tokens for row in rows}


def test_the_default_cuts_it_as_it_cuts_ours(tmp_path):
    folder = written(tmp_path / "packed", [LENGTH] * 160)
    theirs, lengths = trained(folder, Taught(of_tokens))
    ours, _ = trained(folder, TokenCollator())
    assert theirs.tokens == ours.tokens and theirs.losses == ours.losses
    assert lengths == {LENGTH, LENGTH // 2, LENGTH // 4}


def test_the_default_leaves_samples_of_several_lengths_whole(tmp_path, caplog):
    folder = written(tmp_path / "padded", [LENGTH - n % 3 for n in range(160)])
    _, lengths = trained(folder, Taught(of_tokens))
    assert lengths == {LENGTH, LENGTH - 1}  # padded
    why = "arrange.pieces needs packed samples of one length, got 22 to 24 tokens"
    assert [r.message for r in caplog.records if "not used by default" in r.message] == [
        f"pieces is not used by default here: {why}"
    ]
