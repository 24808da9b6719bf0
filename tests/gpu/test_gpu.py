"""What only a GPU can show. Run with ``pytest -m gpu tests/gpu`` on a machine that has one.

``ATTENT_GPU_DRY_RUN=1`` runs on a CPU what a CPU can, so that these tests do not rot.
"""

import os

import pytest
import torch
from composer.core import Event
from corpora import write_tokens
from fits import BATCH, LENGTH, VOCAB, fit, make_loader, make_model
from head_cases import Case
from head_models import build, text

from attent_stream import AtteNT
from attent_stream.effects.noise_scale import EVERY
from attent_stream.score.build import build_scorer
from attent_stream.score.fidelity import Fidelity, Tokens
from attent_stream.score.head import head_scores
from attent_stream.score.microbatches import MicrobatchScorer, score_batch

DRY = bool(os.environ.get("ATTENT_GPU_DRY_RUN"))
DEVICE = "cuda" if torch.cuda.is_available() else "cpu"
pytestmark = [pytest.mark.gpu, pytest.mark.skipif(DEVICE == "cpu" and not DRY, reason="no GPU")]
needs_gpu = pytest.mark.skipif(DEVICE == "cpu", reason="no GPU")
BF16 = torch.bfloat16


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    return write_tokens(tmp_path_factory.mktemp("data"), 160, length=LENGTH, vocab=VOCAB)


def moved(batch: dict) -> dict:
    return {name: value.to(DEVICE) for name, value in batch.items()}


@pytest.mark.parametrize("score", ["residual", "loss", "grad_norm"])
@pytest.mark.parametrize("name", ["llama", "gpt2", "gemma2"])
@pytest.mark.parametrize("fidelity", [None, Fidelity(layers=1, tokens=Tokens(share=0.5))])
def test_scores_are_those_of_a_cpu(name, score, fidelity):
    given = {} if fidelity is None else {"fidelity": fidelity}
    model, batch = build(name), text()
    expected = score_batch(build_scorer(score, model, **given), model, batch, None)
    model = model.to(DEVICE)
    found = score_batch(build_scorer(score, model, **given), model, moved(batch), 2)
    torch.testing.assert_close(found.cpu(), expected, equal_nan=True, rtol=2e-3, atol=2e-4)


@pytest.mark.parametrize("path", ["auto", "chunked", "triton"])
@pytest.mark.parametrize("dtype", [torch.float32, BF16])
@pytest.mark.parametrize("head", [{}, {"bias": True}, {"softcap": 1.5}, {"scale": 0.3}])
def test_every_path_of_the_head_is_right(path, dtype, head):
    if path == "triton" and DEVICE == "cpu":
        pytest.skip("no GPU")
    case = Case(tokens=200, width=64, classes=1000, dtype=dtype, **head)
    hidden, weight, labels, settings = case.operands()
    bias = settings.pop("bias")
    found_nll, found_squares = head_scores(
        hidden.to(DEVICE),
        weight.to(DEVICE),
        labels.to(DEVICE),
        bias=None if bias is None else bias.to(DEVICE),
        path=path,
        **settings,
    )
    nll, squares = case.exact()
    close = {"rtol": 3e-2, "atol": 3e-2} if dtype == BF16 else {"rtol": 1e-3, "atol": 1e-3}
    torch.testing.assert_close(found_nll.double().cpu(), nll, **close)
    torch.testing.assert_close(found_squares.double().cpu(), squares, **close)


@needs_gpu
def test_scoring_halves_where_memory_runs_out():
    class Large:
        """Takes a third of what is free for each sample."""

        reads_outputs = False
        each = torch.cuda.mem_get_info()[0] // 3

        def scores(self, model, batch, draw=()):
            taken = torch.empty(len(batch), self.each, dtype=torch.uint8, device=DEVICE)
            return batch.sum(1) + 0 * taken[:, 0]

    batch = torch.arange(16.0, device=DEVICE).reshape(8, 2)
    scorer = MicrobatchScorer(Large(), torch.nn.Linear(2, 1))
    assert torch.equal(scorer(batch, 8), batch.sum(1))
    assert scorer.limit is not None and scorer.limit < 8


@needs_gpu
def test_batches_are_pinned(folder):
    loader = make_loader(folder, pin_memory=True)
    assert next(iter(loader))["input_ids"].is_pinned()


@pytest.mark.parametrize("precision", ["fp32", "amp_bf16"])
@pytest.mark.parametrize(
    "attent", [{}, {"keep": 0.5, "score": "residual"}, {"arrange": {"balance": "tokens"}}]
)
def test_a_fit_is_taught_and_goes_on(folder, tmp_path, attent, precision):
    if DEVICE == "cpu" and precision != "fp32":
        pytest.skip("no GPU")
    where = {"device": "gpu" if DEVICE == "cuda" else "cpu", "precision": precision}
    save = {"save_folder": str(tmp_path), "save_interval": "20ba", "save_overwrite": True}
    given = {"max_duration": "40ba", **where}
    whole, memory, _ = fit(make_loader(folder), [AtteNT(**attent)], make_model(), **given, **save)
    path = str(tmp_path / "ep0-ba20-rank0.pt")
    rest, _, _ = fit(
        make_loader(folder), [AtteNT(**attent)], make_model(seed=1), load_path=path, **given
    )
    assert rest.tokens == whole.tokens[20:]
    torch.testing.assert_close(
        torch.tensor(rest.losses), torch.tensor(whole.losses[20:]), rtol=1e-2, atol=1e-2
    )
    assert "attent/seconds" in memory.data


@needs_gpu
def test_the_default_does_not_wait_for_the_gpu(folder):
    """AtteNT's own code reads nothing from the GPU, but once in 16 steps the noise scale."""

    class Strict(AtteNT):
        checked = 0

        def apply(self, event, state, logger):
            steps = event in (Event.BATCH_START, Event.BEFORE_FORWARD, Event.AFTER_FORWARD)
            steps |= event in (Event.AFTER_LOSS, Event.AFTER_BACKWARD, Event.BATCH_END)
            measured = (int(state.timestamp.batch) - 1) % EVERY == 1
            if not steps or (event == Event.BATCH_END and measured):
                return super().apply(event, state, logger)
            before = torch.cuda.get_sync_debug_mode()
            torch.cuda.set_sync_debug_mode("error")
            try:
                super().apply(event, state, logger)
            finally:
                torch.cuda.set_sync_debug_mode(before)
            self.checked += 1

    algorithm = Strict()
    fit(make_loader(folder), [algorithm], device="gpu", max_duration="40ba")
    assert algorithm.checked >= 5 * 40 and BATCH
