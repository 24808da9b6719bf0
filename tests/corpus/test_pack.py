"""Packing and splitting."""

import numpy as np
from hypothesis import given
from hypothesis import strategies as st

from attent_stream.corpus.pack import cut, split_of, token_dtype


@given(
    st.lists(st.lists(st.lists(st.integers(0, 9), max_size=30), max_size=5), max_size=5),
    st.integers(1, 17),
)
def test_cut_conserves_order_and_tokens(calls, seq_len):
    carry, out, everything = np.empty(0, np.uint16), [], []
    for call in calls:
        pieces = [np.array(piece, np.uint16) for piece in call]
        samples, carry = cut([carry, *pieces], seq_len)
        assert samples.shape[1] == seq_len and samples.dtype == carry.dtype == np.uint16
        assert len(carry) < seq_len
        out += samples.ravel().tolist()
        everything += [token for piece in call for token in piece]
    assert out + carry.tolist() == everything


def test_split_is_by_content_and_in_proportion():
    texts = [f"document {i}" for i in range(20_000)]
    splits = np.array([split_of(text, (0.1, 0.25)) for text in texts])
    np.testing.assert_allclose(np.bincount(splits) / len(texts), [0.1, 0.25, 0.65], atol=0.015)
    assert split_of(texts[0], (0.1, 0.25)) == splits[0]
    assert {split_of(text, ()) for text in texts[:10]} == {0}
    # A pinned value: a corpus written today and one written next year hold out the same documents.
    assert [split_of(f"{i}", (0.5,)) for i in range(8)] == [1, 1, 0, 1, 0, 1, 0, 1]


def test_token_dtype():
    assert [token_dtype(i) for i in (0, 65535, 65536)] == ["uint16", "uint16", "uint32"]
