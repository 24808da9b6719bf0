"""The collator of conversations pads on the right, without a loss there."""

import pickle

import numpy as np
import pytest

from attent_stream.corpus import CorpusError
from attent_stream.corpus.chat_batches import ChatCollator


def sample(ids, labels) -> dict:
    return {"input_ids": np.array(ids, np.uint16), "labels": np.array(labels, np.int32)}


def test_a_batch_is_as_long_as_its_longest_sample():
    collate = pickle.loads(pickle.dumps(ChatCollator(pad_id=9)))
    batch = collate([sample([1, 2, 3], [-100, 2, 3]), sample([4], [-100])])
    assert batch["input_ids"].tolist() == [[1, 2, 3], [4, 9, 9]]
    assert batch["labels"].tolist() == [[-100, 2, 3], [-100, -100, -100]]
    assert batch["attention_mask"].tolist() == [[1, 1, 1], [1, 0, 0]]


def test_longer_samples_are_cut():
    batch = ChatCollator(max_seq_len=2)([sample([1, 2, 3], [-100, 2, 3])])
    assert batch["input_ids"].tolist() == [[1, 2]] and batch["labels"].tolist() == [[-100, 2]]


@pytest.mark.parametrize(
    ("bad", "reason"),
    [
        ({"input_ids": np.array([1])}, "there is no column 'labels'"),
        (sample([1, 2], [1]), "expected a whole number for each of the 2 ids"),
        ({"input_ids": np.array([1]), "labels": np.array([0.5])}, "holds float64 of shape"),
    ],
)
def test_other_samples_are_refused(bad, reason):
    with pytest.raises(ValueError, match=reason):
        ChatCollator()([bad])


def test_other_columns_are_refused():
    collate = ChatCollator()
    collate.check_columns({"input_ids": "ndarray:uint16", "labels": "ndarray:int32"})
    with pytest.raises(ValueError, match="there is no column 'input_ids', only 'tokens'"):
        collate.check_columns({"tokens": "ndarray:uint16:8"})
    with pytest.raises(ValueError, match="there is no column 'labels', only 'input_ids'"):
        collate.check_columns({"input_ids": "ndarray:uint16"})


def test_wrong_settings_are_refused():
    with pytest.raises(CorpusError, match="pad_id must be a token id, got -1"):
        ChatCollator(pad_id=-1)
    with pytest.raises(CorpusError, match="max_seq_len must be at least 2, got 1"):
        ChatCollator(max_seq_len=1)
