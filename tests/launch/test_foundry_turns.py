"""Conversations as turns: put together again they are what they were."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from attent_stream.launch.foundry_turns import labels_are_aligned, turns_of


def test_each_answer_ends_a_turn():
    ids, labels = [1, 2, 3, 4, 5, 6, 7], [-100, 2, 3, -100, 5, -100, -100]
    assert labels_are_aligned(labels) and not labels_are_aligned(ids)
    assert turns_of(ids, labels) == [
        {"input_ids": [1], "labels": [2, 3]},
        {"input_ids": [4], "labels": [5]},
    ]
    assert turns_of([1, 2], [1, -100]) == [{"input_ids": [], "labels": [1]}]
    with pytest.raises(ValueError, match="an answer in the 2 tokens of a conversation, got none"):
        turns_of([1, 2], [-100, -100])


@given(st.lists(st.booleans(), min_size=1, max_size=20).filter(any))
def test_together_they_are_the_conversation_up_to_its_last_answer(spoken):
    ids = list(range(len(spoken)))
    labels = [token if speaks else -100 for token, speaks in zip(ids, spoken, strict=True)]
    turns = turns_of(ids, labels)
    joined = [token for turn in turns for token in turn["input_ids"] + turn["labels"]]
    last = max(token for token in ids if spoken[token])
    assert joined == ids[: last + 1]
    assert [token for turn in turns for token in turn["labels"]] == [t for t in ids if spoken[t]]
