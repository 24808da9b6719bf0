"""The target's direction: the gradient of its loss in Adam's geometry, by autograd in float64."""

import logging
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from fits import VOCAB, make_loader, make_model
from target_corpora import mixed, write_kinds
from torch.nn.functional import cross_entropy

from attent_stream.data.target import open_target
from attent_stream.fit.aligned_target import AlignedTarget
from attent_stream.fit.target import Target
from attent_stream.score.build import build_scorer
from attent_stream.score.microbatches import score_batch


@pytest.fixture
def parts(tmp_path):
    """A loader, its target and a model."""
    loader = make_loader(write_kinds(tmp_path / "stream", mixed(64)))
    settings = Target.parse(write_kinds(tmp_path / "target", "h" * 40, seed=5))
    samples = open_target([stream.opened() for stream in settings.streams], loader.dataset)
    return loader, SimpleNamespace(settings=settings, samples=samples), make_model().eval()


def aligned_of(parts) -> tuple[AlignedTarget, callable]:
    loader, target, model = parts
    aligned = AlignedTarget(model, target, loader, seed=1)
    scorer = build_scorer(aligned.score, model)
    return aligned, lambda batch: score_batch(scorer, model, batch, None, (0,))


def gradient_of(model, batches) -> torch.Tensor:
    """Of the mean over samples of their mean token losses, in float64."""
    double = make_model().double().eval()
    double.load_state_dict(model.state_dict())
    ids = torch.cat([batch["input_ids"] for batch in batches])
    logits = double.model(input_ids=ids).logits[:, :-1]
    # The head's own gradient: the hidden states do not depend on the embeddings here.
    hidden = double.model.transformer(input_ids=ids).last_hidden_state[:, :-1].detach()
    weight = double.model.lm_head.weight.detach().requires_grad_()
    torch.testing.assert_close(hidden @ weight.T, logits)
    cross_entropy((hidden @ weight.T).flatten(0, 1), ids[:, 1:].flatten()).backward()
    return weight.grad


def trained(model, loader) -> torch.optim.AdamW:
    optimizer = torch.optim.AdamW(model.parameters(), lr=1e-3)
    for ids in ([0, 1, 2, 3], [4, 5, 6, 7]):
        model(loader.collated(ids))["loss"].backward()
        optimizer.step()
        optimizer.zero_grad()
    return optimizer


def said(caplog) -> list[str]:
    return [r.message for r in caplog.records if r.name.startswith("attent_stream")]


def of(aligned) -> torch.Tensor:
    state = aligned.state_dict()
    return state["left"].double() @ state["right"].double()


def test_it_is_the_gradient_in_adams_geometry(parts):
    loader, _, model = parts
    aligned, forward = aligned_of(parts)
    batches = aligned.drawn((0, 1), 4)
    optimizer = trained(model, loader)
    aligned.refresh(batches, forward, [optimizer])
    roots = optimizer.state[model.model.lm_head.weight]["exp_avg_sq"].double().sqrt()
    want = gradient_of(model, batches) / (roots + 0.1 * roots.mean())
    torch.testing.assert_close(of(aligned), want / want.norm(), rtol=1e-4, atol=1e-6)


def test_without_adam_it_is_the_gradient(parts, caplog):
    aligned, forward = aligned_of(parts)
    batches = aligned.drawn((0, 1), 4)
    with caplog.at_level(logging.WARNING):
        aligned.refresh(batches, forward, [torch.optim.SGD(parts[2].parameters(), lr=0.1)])
    want = gradient_of(parts[2], batches)
    torch.testing.assert_close(of(aligned), want / want.norm(), rtol=1e-4, atol=1e-6)
    assert not said(caplog)


def test_moments_that_are_cut_up_are_left_out_and_said_once(parts, caplog):
    aligned, forward = aligned_of(parts)
    batches = aligned.drawn((0, 1), 4)
    optimizer = torch.optim.AdamW(parts[2].parameters())
    optimizer.state[parts[2].model.lm_head.weight] = {"exp_avg_sq": torch.ones(7)}
    with caplog.at_level(logging.WARNING, logger="attent_stream"):
        for _ in range(2):
            aligned.refresh(batches, forward, [optimizer])
    want = gradient_of(parts[2], batches)
    torch.testing.assert_close(of(aligned), want / want.norm(), rtol=1e-4, atol=1e-6)
    assert said(caplog) == [
        "score: alignment leaves the optimizer's second moments out: the output weight has shape "
        "(61, 16), and this rank has moments of shape (7,) (FSDP1 shards them so)."
    ]


def test_half_of_the_direction_before_is_left(parts):
    aligned, forward = aligned_of(parts)
    first, second = aligned.drawn((0, 1), 4), aligned.drawn((0, 2), 4)
    aligned.refresh(first, forward, [])
    aligned.refresh(second, forward, [])
    unit = [gradient_of(parts[2], some) for some in (first, second)]
    want = sum(one / one.norm() for one in unit) / 2
    torch.testing.assert_close(of(aligned), want, rtol=1e-4, atol=1e-6)


def test_what_is_not_finite_changes_nothing(parts):
    aligned, forward = aligned_of(parts)
    batches = aligned.drawn((0, 1), 4)
    aligned.refresh(batches, forward, [])
    before = of(aligned)
    with torch.no_grad():
        parts[2].model.lm_head.weight[0, 0] = float("nan")
    aligned.refresh(batches, forward, [])
    torch.testing.assert_close(of(aligned), before, rtol=0, atol=0)


def test_samples_are_drawn_by_the_windows_number(parts):
    aligned, _ = aligned_of(parts)
    again, _ = aligned_of(parts)

    def drawn(one, window):
        return torch.cat([batch["input_ids"] for batch in one.drawn(window, 4)]).numpy()

    np.testing.assert_array_equal(drawn(aligned, (1, 3)), drawn(again, (1, 3)))
    assert not np.array_equal(drawn(aligned, (1, 3)), drawn(aligned, (0, 3)))
    assert drawn(aligned, (0, 0)).shape[0] == 32


def test_a_direction_of_another_model_is_refused(parts):
    aligned, _ = aligned_of(parts)
    state = {"left": torch.zeros(VOCAB - 1, 2), "right": torch.zeros(2, 16)}
    with pytest.raises(ValueError, match="expected the checkpoint's direction .* 61 classes"):
        aligned.load_state_dict(state)
