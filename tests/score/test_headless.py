"""Scoring without logits against scoring from them, for many architectures and wrappers."""

import json
from types import SimpleNamespace

import pytest
import torch
from corpora import write_tokens
from head_models import MODELS, build, text
from headless_models import both, said
from ports import free_port
from ranks_fit import LENGTH, VOCAB, fit
from together import run_together

from attent_stream.model.batch import split_batch
from attent_stream.model.output_head import find_head
from attent_stream.score import head_call, headless
from attent_stream.score.build import build_scorer
from attent_stream.score.microbatches import score_batch


@pytest.mark.parametrize("name", MODELS)
def test_architectures(name, caplog):
    model = build(name)
    lengths = []
    head = find_head(model).module
    head.register_forward_hook(lambda module, args, out: lengths.append(out.shape[1]))
    for score in ("residual", "loss"):
        lengths.clear()
        want, got, scorer = both(model, text(), score=score)
        torch.testing.assert_close(got, want, equal_nan=True, rtol=1e-5, atol=1e-6)
        assert (
            got.isneginf().tolist() == [False, False, False, True, False]
            and got.unique().numel() == 5
        )
        assert scorer.headless.refused is None and scorer.headless._after[0] == MODELS[name][2]
        # All logits, then some to compare (twice where another scale was tried first), then one
        assert lengths[:3] == [LENGTH] * 3 and set(lengths[3:-2]) == {4} and lengths[-2:] == [1, 1]
    assert not said(caplog) and not head._forward_pre_hooks


def test_few_logits_are_left_to_the_model(monkeypatch):
    model, seen = build("llama"), []
    model.model.lm_head.register_forward_hook(
        lambda module, args, out: seen.append(tuple(out.shape))
    )
    scorer = build_scorer("loss", model)
    score_batch(scorer, model, text(), 5)
    monkeypatch.setattr(headless, "SMALL", 5 * LENGTH * VOCAB)
    score_batch(scorer, model, text(), 5)
    score_batch(scorer, model, text(), 4)
    assert seen == [(5, LENGTH, VOCAB), (5, 4, VOCAB), (4, LENGTH, VOCAB), (1, LENGTH, VOCAB)]


def test_under_autocast_the_head_is_what_autocast_makes_of_it():
    for name in ("llama", "gemma2", "gptj with a bias"):
        model = build(name)
        with torch.autocast("cpu", dtype=torch.bfloat16):
            want, got, scorer = both(model, text(), score="loss")
        assert scorer.headless.refused is None and got.dtype == torch.float32
        # Gemma caps in bf16, the head path in float32
        torch.testing.assert_close(got, want, equal_nan=True, rtol=1e-2, atol=1e-2)
        assert not torch.equal(got.nan_to_num(), both(model, text(), score="loss")[1].nan_to_num())


def test_errors_leave_no_hook(monkeypatch):
    model = build("llama")

    def no_memory(*args, **given):
        raise torch.OutOfMemoryError("CUDA out of memory")

    monkeypatch.setattr(head_call, "head_scores", no_memory)
    scorer = build_scorer("loss", model, head="reference")
    with pytest.raises(torch.OutOfMemoryError):
        score_batch(scorer, model, text(), 2)
    monkeypatch.undo()
    assert not model.model.lm_head._forward_pre_hooks and scorer.headless.refused is None
    batch = text() | {"labels": torch.full((5, LENGTH), VOCAB)}
    # Labels out of range are ignored
    assert score_batch(scorer, model, batch, 2).isneginf().all()
    assert not model.model.lm_head._forward_pre_hooks
    model.model.model.layers[0].forward = SimpleNamespace(no="forward")
    with pytest.raises(TypeError):
        score_batch(scorer, model, text(), 2)
    assert not model.model.lm_head._forward_pre_hooks and scorer.headless.refused is None


def test_a_taught_run_chooses_alike(tmp_path, monkeypatch):
    folder = write_tokens(tmp_path / "data", 101, length=LENGTH, vocab=VOCAB)
    job = {
        "data": {"local": folder, "batch_size": 8, "window": 5, "gap": 1, "shuffle": True},
        "attent": {"select": "hard", "keep": 0.5},
    }
    plain = fit(**job)
    few = []
    monkeypatch.setattr(headless, "SMALL", 0)
    monkeypatch.setattr(
        headless.HeadlessForward, "_measure_density", lambda self, labels: few.append(labels.shape)
    )
    log = fit(**job)
    assert few == [(8, LENGTH)]
    assert (
        log["rows"] == plain["rows"]
        and log["losses"] == plain["losses"]
        and log["model"] == plain["model"]
    )
    assert [choice[:2] for choice in log["choices"]] == [choice[:2] for choice in plain["choices"]]


@pytest.mark.slow
@pytest.mark.timeout(900)
def test_ranks(tmp_path):
    """DDP, FSDP 1 and 2 and tensor parallelism on two ranks give the scores of one."""
    port = str(free_port())
    outs = [tmp_path / f"rank{rank}.json" for rank in range(2)]
    arguments = [[rank, port, str(out)] for rank, out in enumerate(outs)]
    run_together("ranks_head.py", arguments, folder=tmp_path, timeout=840)
    model = build("gpt2")
    whole = score_batch(build_scorer("residual", model, head=None), model, text(), 2)
    for rank, out in enumerate(outs):
        logs = json.loads(out.read_text())
        assert list(logs) == ["ddp", "fsdp1", "fsdp2", "tensor", "odd one out", "split logits"]
        part = torch.tensor([0, 1, 2, 4])[2 * rank : 2 * rank + 2]
        for name, log in logs.items():
            if name == "split logits":
                assert "replicate the output head of a tensor-parallel model" in log["error"]
                continue
            mine = whole[part] if name != "tensor" else whole[torch.tensor([0, 1])]
            torch.testing.assert_close(torch.tensor(log["scores"]), mine, rtol=1e-4, atol=1e-5)
            refused = {
                "tensor": "split over ranks by tensor parallelism",
                "odd one out": "",
                None: None,
            }
            if name in refused:
                assert refused[name] in log["refused"]
            else:
                assert log["refused"] is None and log["lengths"] == [4, 1]
        assert logs["odd one out"]["lengths"] == [4, LENGTH, LENGTH]


def test_parts_of_a_batch_are_scored_alike():
    """Scores depend neither on the microbatch nor on its number of samples without labels."""
    model, batch = build("llama"), text()
    scorer = build_scorer("loss", model, head="reference")
    whole = score_batch(scorer, model, batch, None)
    for size in (1, 3, 5):
        parts = [scorer.scores(model, part) for part in split_batch(batch, size)]
        torch.testing.assert_close(
            torch.cat(parts).detach(), whole, equal_nan=True, rtol=1e-5, atol=1e-6
        )
