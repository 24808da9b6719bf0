"""Blocks of shared memory: a batch stays what it is until nobody has it. Then its block goes on."""

import gc
import pickle
import threading
from multiprocessing.reduction import ForkingPickler

import numpy as np
import pytest
import torch
from corpora import write_ids
from hypothesis import given
from hypothesis import strategies as st

from attent_stream import TeachingDataLoader, TeachingDataset
from attent_stream.base.errors import AttentError
from attent_stream.data import blocks, one_block
from attent_stream.data.blocks import MOST, Blocks, Lender
from attent_stream.data.one_block import as_batch, in_one_block

pytestmark = pytest.mark.usefixtures("sends_memory")


@pytest.fixture(scope="module")
def folder(tmp_path_factory) -> str:
    return write_ids(tmp_path_factory.mktemp("ids") / "data", 160)


@pytest.fixture(autouse=True)
def every_batch_in_a_block(monkeypatch):
    monkeypatch.setattr(one_block, "SMALL", 1)


def sent(batch, lender):
    """As a worker's queue sends it."""
    return pickle.loads(bytes(ForkingPickler.dumps(in_one_block(batch, lender.lend))))


def filled(value, size=100):
    return {"ids": torch.full((size,), value), "more": torch.full((3, size), float(value))}


def holds(batch, value):
    return bool((batch["ids"] == value).all() and (batch["more"] == value).all())


def made(lender):
    return lender._made


def test_a_block_is_used_again_when_no_tensor_of_it_is_left():
    received = Blocks()
    lender = Lender(received.key)
    for value in range(20):
        batch = as_batch(sent(filled(value), lender))
        assert holds(batch, value)
    assert made(lender) == 2  # one is held while the next one comes


@pytest.mark.parametrize(
    "keep",
    [
        lambda batch: batch["ids"],
        lambda batch: batch["ids"][5:50],
        lambda batch: batch["ids"].numpy(),
        lambda batch: batch["more"][:, None, 7:].transpose(0, 2),
        lambda batch: torch.ones(100, requires_grad=True) * batch["more"][0],  # saved for backward
        lambda batch: torch.utils.dlpack.from_dlpack(batch["ids"]),
        lambda batch: memoryview(batch["ids"].numpy()),
    ],
)
def test_whatever_keeps_a_batch_keeps_its_block(keep):
    received = Blocks()
    lender = Lender(received.key)
    kept = keep(as_batch(sent(filled(1), lender)))
    before = torch.as_tensor(np.asarray(kept) if isinstance(kept, memoryview) else kept).clone()
    for value in range(2, 6):
        assert holds(as_batch(sent(filled(value), lender)), value)
    now = torch.as_tensor(np.asarray(kept) if isinstance(kept, memoryview) else kept)
    assert torch.equal(now, before) and made(lender) == 2
    if isinstance(kept, torch.Tensor) and kept.requires_grad:
        weight = kept.grad_fn.next_functions[0][0].variable
        kept.sum().backward()
        assert weight.grad.tolist() == [1.0] * 100
    del kept, before, now
    gc.collect()
    for value in range(6, 9):
        as_batch(sent(filled(value), lender))
    assert made(lender) == 2


@given(
    st.lists(st.tuples(st.sampled_from(["send", "drop", "lose"]), st.integers(0, 30)), max_size=80),
    st.integers(1, 4),
)
def test_in_any_order_batches_stay_what_they_are(steps, most):
    received = Blocks()
    lender = Lender(received.key)
    before, blocks.MOST = blocks.MOST, most
    try:
        held, value = [], 0
        for what, number in steps:
            if what == "drop" and held:
                held.pop(number % len(held))
            elif what == "lose":  # it arrives and is never made a batch
                sent(filled(-1, 1 + number * 7), lender)
            else:
                value += 1
                held.append((value, as_batch(sent(filled(value, 1 + number * 7), lender))))
            assert all(holds(batch, number) for number, batch in held)
            assert len(lender._blocks) <= most
    finally:
        blocks.MOST = before


def test_batches_that_are_all_kept_take_new_memory():
    received = Blocks()
    lender = Lender(received.key)
    kept = [as_batch(sent(filled(value), lender)) for value in range(2 * MOST)]
    assert all(holds(batch, value) for value, batch in enumerate(kept)) and made(lender) == MOST


def test_a_larger_block_takes_the_place_of_a_smaller_one():
    received = Blocks()
    lender = Lender(received.key)
    for size in (10, 100, 1000, 10_000, 10_000, 10):
        assert holds(as_batch(sent(filled(size, size), lender)), size)
        assert len(lender._blocks) == 1
    assert len(received._memory) == 1


def test_another_thread_may_be_the_last_to_have_it():
    received = Blocks()
    lender = Lender(received.key)
    for value in range(5):
        box = [as_batch(sent(filled(value), lender))]
        thread = threading.Thread(target=box.clear)
        thread.start()
        thread.join()
    assert made(lender) == 1


def test_a_process_that_received_nothing_says_so():
    lender = Lender("nobody")
    batch = as_batch(sent(filled(1), lender))  # with its memory, as the first time
    assert holds(batch, 1)
    lender._blocks[0].flag[0] = 0
    with pytest.raises(AttentError, match="block 0, which this process never received"):
        sent(filled(2), lender)


class Wide:
    """Batches that are large enough for blocks."""

    def __call__(self, samples):
        ids = torch.tensor([int(sample["id"]) for sample in samples])
        return {"ids": ids, "wide": ids[:, None].expand(-1, 10_000).contiguous()}


def loader_of(folder, workers, **more):
    data = TeachingDataset(local=folder, shuffle=True, batch_size=4, window=4)
    return TeachingDataLoader(data, batch_size=4, collate_fn=Wide(), num_workers=workers, **more)


def as_read(batches):
    return [(batch["ids"].tolist(), batch["wide"][:, [0, -1]].tolist()) for batch in batches]


@pytest.mark.parametrize("context", ["fork", pytest.param("spawn", marks=pytest.mark.slow)])
def test_an_epoch_that_is_kept_whole_is_as_without_workers(folder, context):
    expected = as_read(list(loader_of(folder, 0)))
    kept = list(loader_of(folder, 2, multiprocessing_context=context))
    assert as_read(kept) == expected and len(kept) > 2 * MOST
    places = {batch["ids"].data_ptr() for batch in kept}
    assert len(places) == len(kept)


def test_an_epoch_that_is_let_go_of_uses_few_blocks(folder):
    read, places = [], set()
    for batch in loader_of(folder, 2):
        read += as_read([batch])
        places.add(batch["ids"].data_ptr())
    assert read == as_read(list(loader_of(folder, 0)))
    assert len(places) <= 8  # a worker reads two ahead, one is being read and one is trained on


def test_persistent_workers_keep_their_blocks_over_epochs_that_end_early(folder):
    loader, plain = loader_of(folder, 2, persistent_workers=True), loader_of(folder, 0)
    places = set()
    for stop in (3, 40, 7, 40):
        read = []
        for batch in loader:
            read += as_read([batch])
            places.add(batch["ids"].data_ptr())
            if len(read) == stop:
                break
        expected = as_read(list(plain))
        assert read == expected[:stop]
    assert len(places) <= 8


def test_two_open_iterations_do_not_take_each_others_blocks(folder):
    loader = loader_of(folder, 1)
    first = iter(loader)
    kept = [next(first) for _ in range(3)]
    second = iter(loader)
    kept += [next(second) for _ in range(3)]
    before = as_read(kept)
    for one, other in zip(first, second, strict=False):
        assert one["wide"].data_ptr() != other["wide"].data_ptr()
    assert as_read(kept) == before
