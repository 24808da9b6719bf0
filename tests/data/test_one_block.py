"""A batch in one block comes out as it went in."""

import pickle
from collections import OrderedDict, namedtuple
from multiprocessing.reduction import ForkingPickler

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from attent_stream.data import one_block
from attent_stream.data.one_block import OneBlock, as_batch, in_one_block

pytestmark = pytest.mark.usefixtures("sends_memory")
Pair = namedtuple("Pair", "first second")
DTYPES = (
    torch.int64,
    torch.int32,
    torch.uint8,
    torch.bool,
    torch.float32,
    torch.float16,
    torch.bfloat16,
    torch.complex64,
)


def tensor(shape, dtype, seed):
    made = torch.Generator().manual_seed(seed)
    return torch.randint(0, 2 if dtype is torch.bool else 100, shape, generator=made).to(dtype)


TENSORS = st.builds(
    tensor,
    st.lists(st.integers(0, 5), min_size=0, max_size=3).map(tuple),
    st.sampled_from(DTYPES),
    st.integers(0, 99),
)
LEAVES = st.one_of(TENSORS, st.integers(), st.text(max_size=3), st.none())
BATCHES = st.recursive(
    LEAVES,
    lambda inner: st.one_of(
        st.lists(inner, max_size=4),
        st.tuples(inner, inner),
        st.builds(Pair, inner, inner),
        st.dictionaries(st.text(max_size=3), inner, max_size=4),
        st.dictionaries(st.text(max_size=3), inner, max_size=3).map(OrderedDict),
    ),
    max_leaves=12,
)


def same(a, b):
    assert type(a) is type(b)
    if isinstance(a, torch.Tensor):
        assert a.dtype == b.dtype and a.shape == b.shape and torch.equal(a, b)
    elif isinstance(a, dict):
        assert list(a) == list(b)
        for key in a:
            same(a[key], b[key])
    elif isinstance(a, (list, tuple)):
        assert len(a) == len(b)
        for one, other in zip(a, b, strict=True):
            same(one, other)
    else:
        assert a == b


def sent(batch):
    """As a worker's queue sends it."""
    return as_batch(pickle.loads(bytes(ForkingPickler.dumps(in_one_block(batch)))))


@given(BATCHES)
def test_it_comes_out_as_it_went_in(batch):
    same(sent(batch), batch)


@pytest.mark.parametrize("small", [True, False])
def test_a_block_is_small_or_shared(monkeypatch, small):
    monkeypatch.setattr(one_block, "LARGE", 1 << 20 if small else 1)
    batch = {"a": torch.arange(12).view(3, 4), "b": torch.ones(5, dtype=torch.bool)}
    block = in_one_block(batch)
    assert isinstance(block, OneBlock) and isinstance(block.block, bytearray) is small
    if not small:
        assert block.block.is_shared()
    got = sent(batch)
    same(got, batch)
    got["a"][0, 0] = 7  # may be written to, and each tensor is apart
    assert got["b"].all() and batch["a"][0, 0] == 0


def test_one_object_stays_one():
    ids = torch.arange(6)
    got = sent({"input_ids": ids, "labels": ids, "n": 1})
    assert got["input_ids"] is got["labels"]


def test_writing_to_one_tensor_is_not_writing_to_another():
    batch = sent({"x": torch.ones(4), "labels": torch.zeros(4, dtype=torch.int64)})
    weight = torch.ones(4, requires_grad=True)
    loss = (batch["x"] * weight).sum()
    batch["labels"][0] = -100
    loss.backward()
    assert weight.grad.tolist() == [1.0] * 4 and batch["x"].tolist() == [1.0] * 4


def test_what_would_come_out_otherwise_is_left_alone():
    base = torch.arange(8)
    views = {"a": base[:4], "b": base[4:]}  # of one memory
    assert in_one_block(views) is views
    part = {"a": torch.arange(6).view(2, 3)}
    part["b"] = part["a"][:, :2]  # not contiguous, and of the same memory
    assert in_one_block(part) is part
    for leaf in (
        torch.nn.Parameter(torch.ones(2)),
        torch.ones(2).to_sparse(),
        torch.arange(6).view(2, 3).t(),
        torch.ones(3).share_memory_(),
        torch.empty(0),
        np.arange(3),
        "text",
    ):
        batch = {"leaf": leaf, "other": torch.ones(2)}
        block = in_one_block(batch)
        assert isinstance(block, OneBlock) and block.packed == [False, True]
        assert block.batch()["leaf"] is leaf
    assert in_one_block(["text"]) == ["text"] and in_one_block(None) is None


def test_a_thread_that_pins_gets_the_batch(monkeypatch):
    monkeypatch.setattr("torch.utils.data._utils.pin_memory.pin_memory", lambda batch, _: batch)
    batch = {"a": torch.arange(3), "b": [torch.ones(2)]}
    same(in_one_block(batch).pin_memory(), batch)
