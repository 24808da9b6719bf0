"""What a batch's training leaves out. Oracles: a brute-force loop, the whole loss with labels
ignored, stock Composer on the kept microbatches, a resumed run.
"""

import gc
import math
import weakref
from types import SimpleNamespace
from unittest import mock

import numpy as np
import pytest
import torch
from composer import Algorithm, Event
from corpora import write_tokens
from fits import LENGTH, VOCAB, make_loader, make_model
from hypothesis import given
from hypothesis import strategies as st
from training import trained
from transformers import LlamaConfig, LlamaForCausalLM

from attent_stream import AtteNT
from attent_stream.base.errors import AttentError
from attent_stream.experimental.kept_backward import KeptBackward
from attent_stream.experimental.kept_positions import KEY, KeptPositions, drawn_positions
from attent_stream.experimental.skipped_compute import SkippedCompute, SkippedComputeSettings
from attent_stream.model.reference import IGNORED


@given(
    data=st.data(), share=st.floats(0.01, 1.0), rows=st.integers(1, 4), length=st.integers(2, 12)
)
def test_positions_are_the_share_of_each_samples_own(data, share, rows, length):
    ignored = data.draw(
        st.lists(
            st.lists(st.booleans(), min_size=length, max_size=length), min_size=rows, max_size=rows
        )
    )
    labels = (
        torch.arange(rows * length)
        .reshape(rows, length)
        .masked_fill(torch.tensor(ignored), IGNORED)
    )
    positions, kept = drawn_positions(labels, share, torch.Generator().manual_seed(3))
    size = math.ceil(share * (length - 1) - 1e-9)
    assert positions.shape == kept.shape == (rows, size + 1) and (kept[:, 0] == IGNORED).all()
    for row in range(rows):
        valid = [t for t in range(length - 1) if labels[row, t + 1] != IGNORED]
        pairs = [
            (int(t), int(label))
            for t, label in zip(positions[row], kept[row, 1:], strict=False)
            if label != IGNORED
        ]
        assert len(pairs) == len({t for t, _ in pairs}) == math.ceil(share * len(valid) - 1e-9)
        assert all(t in valid and label == labels[row, t + 1] for t, label in pairs)


def test_a_share_that_is_no_binary_fraction_is_not_rounded_up_twice():
    # 50 of 100 positions predict something
    labels = torch.arange(101)[None].masked_fill(torch.arange(101)[None] > 50, IGNORED)
    _, kept = drawn_positions(labels, 0.3, torch.Generator().manual_seed(0))
    assert (kept != IGNORED).sum() == 15


def test_every_position_has_the_same_chance():
    labels = torch.arange(9).repeat(400, 1)
    positions, _ = drawn_positions(labels, 0.5, torch.Generator().manual_seed(1))
    counts = torch.bincount(positions[:, :-1].flatten(), minlength=8)
    assert counts.sum() == 1600 and (counts - 200).abs().max() < 5 * math.sqrt(400 * 0.25)


def llama():
    torch.manual_seed(0)
    sizes = {
        "hidden_size": 16,
        "intermediate_size": 32,
        "num_hidden_layers": 2,
        "num_attention_heads": 2,
    }
    model = make_model()
    model.model = LlamaForCausalLM(
        LlamaConfig(vocab_size=VOCAB, max_position_embeddings=LENGTH, **sizes)
    )
    return model


def gradients(model):
    return torch.cat([p.grad.flatten() for p in model.parameters() if p.grad is not None])


@pytest.mark.parametrize("make", [make_model, llama])
def test_the_gradient_is_that_of_the_kept_positions_loss(make):
    model = make().double()
    ids = torch.randint(VOCAB, (3, LENGTH), generator=torch.Generator().manual_seed(2))
    labels = ids.clone()
    labels[1, 5:] = IGNORED
    kept = KeptPositions(model, share=0.3, seed=(17, 0))
    batch = {"input_ids": ids, "labels": labels}
    kept.draw(batch, 4)
    kept.begin_forward(batch)
    outputs = model(dict(batch))
    kept.forward_done()
    assert outputs["logits"].shape == (3, batch[KEY].shape[1], VOCAB)
    model.loss(outputs, batch).backward()
    got = gradients(model)

    model.zero_grad()
    whole = torch.full_like(labels, IGNORED)
    for row in range(3):
        for position, label in zip(batch[KEY][row, :-1], batch["labels"][row, 1:], strict=True):
            if label != IGNORED:
                whole[row, position + 1] = label
    wanted = {"input_ids": ids, "labels": whole}
    model.loss(model(dict(wanted)), wanted).backward()
    torch.testing.assert_close(got, gradients(model))
    assert model(dict(wanted))["logits"].shape == (3, LENGTH, VOCAB)  # the head is as it was


def run(folder, *, microbatch=4, model=None, **given):
    return trained(model or make_model(), make_loader(folder), microbatch=microbatch, **given)


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    return write_tokens(tmp_path_factory.mktemp("tokens") / "data", 64, length=LENGTH, vocab=VOCAB)


def test_positions_depend_on_neither_microbatches_nor_resumes(folder, tmp_path):
    skips = {"positions": 0.5, "record": "always", "score": "loss"}
    whole = run(folder, saved=str(tmp_path / "saved"), **skips)
    torch.testing.assert_close(run(folder, microbatch=2, **skips), whole, rtol=1e-4, atol=1e-5)
    assert torch.equal(
        run(folder, load=str(next((tmp_path / "saved").glob("ep0-ba7-rank0.pt"))), **skips), whole
    )
    assert not torch.allclose(run(folder), whole)


def test_nothing_is_left_out_before_warmup_is_over(folder):
    skips = {"microbatch": 1, "positions": 0.5, "backward": 0.5}
    assert torch.equal(run(folder, **skips, warmup="1ep"), run(folder, microbatch=1))
    assert torch.equal(run(folder, **skips, anneal="1dur"), run(folder, microbatch=1))


class Spy(Algorithm):
    """What loss each microbatch had, and whether its backward reached the model."""

    def __init__(self):
        self.seen = []

    def match(self, event, state):
        return event in (Event.BEFORE_TRAIN_BATCH, Event.BEFORE_BACKWARD, Event.AFTER_BACKWARD)

    def apply(self, event, state, logger):
        weight = next(state.model.parameters())
        now = torch.zeros_like(weight) if weight.grad is None else weight.grad.clone()
        if event == Event.BEFORE_BACKWARD:
            self.loss = float(state.loss.detach())
        elif event == Event.BEFORE_TRAIN_BATCH:
            self.seen.append([])
        else:
            self.seen[-1].append((self.loss, not torch.equal(now, self.grad)))
        self.grad = torch.zeros_like(weight) if event == Event.BEFORE_TRAIN_BATCH else now


def brute(losses, share, kept_of, history=64):
    """The rule, said in another way: a flag for each microbatch."""
    late, flags = [], []
    for batch in losses:
        mine = []
        for number, loss in enumerate(batch):
            large = not late or loss >= np.quantile(late[-history:], 1 - share)
            spare = kept_of - sum(mine) - 1  # without the last one's place
            must = kept_of - sum(mine) == len(batch) - number
            mine.append(number == len(batch) - 1 or must or (large and spare > 0))
            late.append(loss)
        flags.append(mine)
    return flags


def test_the_largest_losses_go_backward_and_equally_many_of_each_batch(folder):
    spy = Spy()
    run(folder, microbatch=1, backward=0.5, algorithms=[spy])
    flags = [[kept for _, kept in batch] for batch in spy.seen]
    assert len(flags) == 16 and all(sum(batch) == 2 and batch[-1] for batch in flags)
    assert flags == brute([[loss for loss, _ in batch] for batch in spy.seen], 0.5, 2)
    assert len({tuple(batch) for batch in flags}) > 1


def test_the_gradient_is_that_of_the_kept_microbatches_scaled_to_the_batch(folder):
    class Gradient(Algorithm):
        batches, gradient = (), None

        def match(self, event, state):
            return event in (Event.AFTER_FORWARD, Event.AFTER_TRAIN_BATCH)

        def apply(self, event, state, logger):
            if event == Event.AFTER_FORWARD:
                self.batches = [*self.batches, state.batch]
            elif self.gradient is None:
                self.gradient = gradients(state.model)

    watch, spy = Gradient(), Spy()
    run(folder, microbatch=1, backward=0.5, duration="1ba", algorithms=[watch, spy])
    model = make_model()
    for batch, (loss, kept) in zip(watch.batches, spy.seen[0], strict=True):
        made = model.loss(model(dict(batch)), batch)
        assert made.item() == pytest.approx(loss)  # what is logged is the loss
        if kept:
            (made * (4 / 2) / 4).backward()
    torch.testing.assert_close(watch.gradient, gradients(model))


def test_the_graph_of_a_microbatch_that_is_left_out_is_freed(folder):
    """Before the next forward, which would need its memory."""

    class Graphs(Algorithm):
        made, left_out = None, []  # of this microbatch; of those that are left out

        def match(self, event, state):
            return event in (Event.AFTER_FORWARD, Event.AFTER_BACKWARD)

        def apply(self, event, state, logger):
            if event == Event.AFTER_FORWARD:
                marker = Marker()
                # Saved tensors hang on it; these of the first layer are held by the keys and values
                # too, not by the logits alone.
                state.outputs["past_key_values"][0][0].grad_fn.metadata["marker"] = marker
                self.made = weakref.ref(marker)
            elif event == Event.AFTER_BACKWARD and not state.outputs["logits"].requires_grad:
                gc.collect()
                self.left_out.append(self.made() is None)

    watch = Graphs()
    run(folder, microbatch=1, backward=0.5, duration="4ba", algorithms=[watch])
    assert len(watch.left_out) == 8 and all(watch.left_out)


class Marker:
    pass


def test_backward_goes_on_where_a_checkpoint_was(folder, tmp_path):
    whole = run(folder, microbatch=1, backward=0.5, saved=str(tmp_path / "saved"))
    checkpoint = next((tmp_path / "saved").glob("ep0-ba7-rank0.pt"))
    assert torch.equal(run(folder, microbatch=1, backward=0.5, load=str(checkpoint)), whole)


def test_losses_that_are_not_finite_are_not_compared_with():
    kept = KeptBackward(0.5)
    kept.begin_batch(2)
    kept.loss_done(
        SimpleNamespace(loss=torch.tensor(float("nan"), requires_grad=True), outputs=None)
    )
    assert kept.state() == []
    kept.loss_done(SimpleNamespace(loss=torch.tensor(2.5, requires_grad=True), outputs=None))
    assert kept.state() == [2.5]


@pytest.mark.parametrize(
    "wrong", [{"positions": 0}, {"positions": 1.5}, {"backward": True}, {"backward": "half"}]
)
def test_shares_out_of_range_are_named(wrong):
    with pytest.raises(ValueError, match=r"must be in \(0, 1\], got"):
        AtteNT(**wrong)


def test_what_cannot_be_left_out_is_refused_before_training(folder):
    with pytest.raises(
        ValueError,
        match=(
            "device_train_microbatch_size must be at most half of the batch's 4 samples on each "
            "rank, got 3"
        ),
    ):
        run(folder, microbatch=3, backward=0.5)
    for state, why in (
        ({"fsdp_enabled": True}, "must be 1 with FSDP"),
        ({"auto_microbatching": True}, "on several ranks needs"),
    ):
        state = SimpleNamespace(**{"fsdp_enabled": False, "auto_microbatching": False} | state)
        with (
            pytest.raises(ValueError, match=why),
            mock.patch("attent_stream.experimental.skipped_compute.dist.get_world_size", lambda: 2),
        ):
            SkippedCompute(SkippedComputeSettings(backward=0.5), seed=1).open(state, 4, None)
    unshifted = make_model()
    unshifted.shift_labels = False
    with pytest.raises(AttentError, match="positions=0.5 needs a causal language model"):
        run(folder, positions=0.5, model=unshifted)
    with pytest.raises(
        AttentError, match=r"needs a batch with labels of shape \(B, T\), got NoneType"
    ):
        KeptPositions(make_model(), share=0.5, seed=(1,)).draw({"input_ids": torch.zeros(2, 3)}, 0)
