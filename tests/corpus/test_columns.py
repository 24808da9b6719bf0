"""Columns of an index and of samples; the oracle of ids is numpy's own conversion."""

from types import SimpleNamespace

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from attent_stream.corpus.columns import (
    check_image,
    check_tokens,
    columns_of,
    token_ids,
    value_of,
    whole_dtype,
)

DTYPES = ("uint8", "uint16", "int32", "int64")


@given(st.lists(st.integers(0, 127), max_size=20), st.sampled_from(DTYPES))
def test_arrays_lists_and_bytes_hold_the_same_ids(ids, name):
    dtype, array = np.dtype(name), np.array(ids, name)
    for value in (array, array.tobytes(), bytearray(array.tobytes())):
        got = token_ids({"t": value}, "t", dtype)
        assert got.dtype == dtype and got.tolist() == ids
    assert token_ids({"t": ids}, "t", None).tolist() == ids


@pytest.mark.parametrize(
    ("value", "dtype", "message"),
    [
        (b"12", None, "holds raw bytes: set dtype"),
        (b"123", "uint16", "3 bytes in a sample, expected a multiple of 2"),
        ("text", None, "holds str, expected token ids"),
        (np.zeros((2, 2), int), None, r"int64 of shape \(2, 2\), expected token ids"),
        (np.zeros(2, "uint16"), "int64", "holds uint16, not int64: remove dtype"),
        ([3, -1], None, "negative token id -1"),
        ([[1], [1, 2]], None, "holds list, expected token ids"),
    ],
)
def test_what_holds_no_ids_is_refused(value, dtype, message):
    with pytest.raises(ValueError, match=message):
        token_ids({"t": value}, "t", None if dtype is None else np.dtype(dtype))


def test_a_missing_column_lists_the_others():
    with pytest.raises(ValueError, match=r"no column 'x', only 'a' \(int\): set label_column"):
        value_of({"a": 1}, "x", "label_column")
    with pytest.raises(ValueError, match="no column 'x', only none"):
        check_tokens({}, "x", None)


@pytest.mark.parametrize("name", ["float32", "str", "nothing"])
def test_only_whole_numbers_are_ids(name):
    assert whole_dtype("int32") == np.int32
    with pytest.raises(ValueError, match="dtype must name whole numbers"):
        whole_dtype(name)


@pytest.mark.parametrize(
    ("encoding", "dtype", "good"),
    [
        ("ndarray:uint16:32", None, True),
        ("ndarray", "int64", True),
        ("ndarray:uint16", "int64", False),
        ("ndarray:float32", None, False),
        ("bytes", "int64", True),
        ("bytes", None, False),
        ("json", None, True),
        ("str", None, False),
    ],
)
def test_an_index_declares_token_ids(encoding, dtype, good):
    dtype = None if dtype is None else np.dtype(dtype)
    if good:
        check_tokens({"t": encoding}, "t", dtype)
    else:
        with pytest.raises(ValueError, match="^column 't' holds "):
            check_tokens({"t": encoding}, "t", dtype)


def test_an_index_declares_images_and_labels():
    check_image({"i": "jpeg:90", "l": "uint8"}, "i", "l")
    with pytest.raises(ValueError, match="column 'l' holds str, expected class numbers"):
        check_image({"i": "png", "l": "str"}, "i", "l")
    with pytest.raises(ValueError, match="column 'i' holds int, expected encoded images"):
        check_image({"i": "int", "l": "int"}, "i", "l")


def test_distinct_columns_of_shards():
    mds = SimpleNamespace(column_names=["a"], column_encodings=["int"])
    shards = [mds, mds, SimpleNamespace(columns={"b": "str"}), SimpleNamespace()]
    assert columns_of(shards) == [{"a": "int"}, {"b": "str"}]
