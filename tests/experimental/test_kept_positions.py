"""The loss on a share of the positions. Oracles: counts, the whole loss with labels ignored, a
resumed run.
"""

import math
from types import SimpleNamespace

import pytest
import torch
from composer import Event, Time
from corpora import write_tokens
from fits import LENGTH, VOCAB, make_loader, make_model
from hypothesis import given
from hypothesis import strategies as st
from training import trained
from transformers import LlamaConfig, LlamaForCausalLM

from attent_stream.base.errors import AttentError
from attent_stream.experimental.kept_positions import KEY, KeptPositions, drawn_positions
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


def opened(model, share: float) -> KeptPositions:
    """In a fit of this model."""
    kept = KeptPositions(share)
    state = SimpleNamespace(model=model, max_duration=Time.from_timestring("1ep"))
    kept.apply(Event.FIT_START, state, None)
    return kept


@pytest.mark.parametrize("make", [make_model, llama])
def test_the_gradient_is_that_of_the_kept_positions_loss(make):
    model = make().double()
    ids = torch.randint(VOCAB, (3, LENGTH), generator=torch.Generator().manual_seed(2))
    labels = ids.clone()
    labels[1, 5:] = IGNORED
    kept = opened(model, 0.3)
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


def run(folder, *, kept=None, microbatch=4, model=None, **given):
    return trained(
        model or make_model(),
        make_loader(folder),
        algorithms=[] if kept is None else [kept],
        microbatch=microbatch,
        **given,
    )


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    return write_tokens(tmp_path_factory.mktemp("tokens") / "data", 64, length=LENGTH, vocab=VOCAB)


def test_positions_depend_on_neither_microbatches_nor_resumes(folder, tmp_path):
    given = {"remember": "always", "score": "loss"}
    whole = run(folder, kept=KeptPositions(0.5), saved=str(tmp_path / "saved"), **given)
    split = run(folder, kept=KeptPositions(0.5), microbatch=2, **given)
    torch.testing.assert_close(split, whole, rtol=1e-4, atol=1e-5)
    path = str(next((tmp_path / "saved").glob("ep0-ba7-rank0.pt")))
    assert torch.equal(run(folder, kept=KeptPositions(0.5), load=path, **given), whole)
    assert not torch.allclose(run(folder), whole)
    assert not torch.allclose(run(folder, kept=KeptPositions(0.5, seed=18)), whole)


def test_all_positions_count_in_the_warmup_and_the_anneal(folder):
    plain = run(folder)
    for phases in ({"warmup": "1ep"}, {"anneal": "1dur"}):
        assert torch.equal(run(folder, kept=KeptPositions(0.5, **phases)), plain)
    assert torch.equal(run(folder, kept=KeptPositions(1.0)), plain)
    assert not torch.allclose(run(folder, kept=KeptPositions(0.5, warmup="8ba")), plain)


@pytest.mark.parametrize("wrong", [0, 1.5, True, "half"])
def test_shares_out_of_range_are_named(wrong):
    with pytest.raises(ValueError, match=r"kept_positions.share must be in \(0, 1\], got"):
        KeptPositions(wrong)


def test_what_cannot_be_left_out_is_refused_in_a_sentence(folder):
    unshifted = make_model()
    unshifted.shift_labels = False
    with pytest.raises(AttentError, match="kept_positions needs a causal language model, in which"):
        run(folder, kept=KeptPositions(0.5), model=unshifted)
    with pytest.raises(AttentError, match=r"a batch with labels of shape \(B, T\), got NoneType"):
        KeptPositions(0.5).draw({"input_ids": torch.zeros(2, 3)}, 0)
    with pytest.raises(ValueError, match="anneal"):
        run(folder, kept=KeptPositions(0.5, anneal="100tok"))


def test_a_model_that_does_not_call_its_head_is_refused():
    kept = opened(make_model(), 0.5)
    batch = {"labels": torch.zeros(2, 6, dtype=torch.long)}
    kept.draw(batch, 0)
    kept.begin_forward(batch)
    with pytest.raises(AttentError, match="has no effect on this model, whose forward does not"):
        kept.forward_done()
