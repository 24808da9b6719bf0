"""Scoring without logits against scoring from them, for models as they come: architectures, what
they do to their logits, wrappers, and models that cannot be scored so.
"""

import json
import re
from types import SimpleNamespace

import pytest
import torch
from composer.models import HuggingFaceModel
from corpora import write_tokens
from head_models import MODELS, T, build, text, wrapped
from ports import free_port
from ranks_fit import LENGTH, VOCAB, fit
from together import run_together

from attent_stream.base.errors import ScoreError
from attent_stream.model.batch import split_batch
from attent_stream.model.output_head import HeadError, find_head
from attent_stream.score import head_call, headless
from attent_stream.score.build import build_scorer
from attent_stream.score.microbatches import score_batch

LOGGERS = ("attent_stream.score.headless", "attent_stream.score.build")


def both(
    model: HuggingFaceModel,
    batch: dict,
    *,
    score: str = "residual",
    head: str = "reference",
    size: int = 2,
):
    """Scores from logits, scores without, and the scorer of the latter."""
    scorer = build_scorer(score, model, head=head)
    want = score_batch(build_scorer(score, model, head=None), model, batch, size)
    return want, score_batch(scorer, model, batch, size), scorer


def said(caplog) -> list[str]:
    return [record.getMessage() for record in caplog.records if record.name in LOGGERS]


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
        # All of the logits, then some to compare (again, where another scale was tried first), then
        # next to none.
        assert lengths[:3] == [LENGTH] * 3 and set(lengths[3:-2]) == {4} and lengths[-2:] == [1, 1]
    assert not said(caplog) and not head._forward_pre_hooks


class Shared(torch.nn.Embedding):
    """An embedding that is its own head, as llm-foundry has it."""

    def forward(self, input: torch.Tensor, unembed: bool = False) -> torch.Tensor:
        return torch.nn.functional.linear(input, self.weight) if unembed else super().forward(input)


class Tiny(torch.nn.Module):
    """A causal LM of one layer; ``after`` is what happens to its logits."""

    def __init__(
        self,
        head: torch.nn.Module | None = None,
        after=lambda logits: logits,
        calls: int = 1,
        **config,
    ):
        super().__init__()
        torch.manual_seed(0)
        self.embed = Shared(VOCAB, 16)
        self.layer = torch.nn.Linear(16, 16)
        self.head = head
        self.after, self.calls = after, calls
        self.config = T.PretrainedConfig(d_model=16, **config)

    def get_output_embeddings(self) -> torch.nn.Module:
        return self.embed if self.head is None else self.head

    def forward(self, input_ids: torch.Tensor, attention_mask: torch.Tensor | None = None) -> dict:
        hidden = self.layer(self.embed(input_ids)).tanh()
        for _ in range(self.calls):
            logits = self.embed(hidden, True) if self.head is None else self.head(input=hidden)
        return {"logits": self.after(logits)}


class Composed(torch.nn.Module):
    """As much of Composer's HuggingFaceModel as scoring looks at."""

    def __init__(self, model: torch.nn.Module) -> None:
        super().__init__()
        self.model, self.config = model, model.config
        self.shift_labels, self.model_forward_args = True, {"input_ids", "attention_mask"}

    def forward(self, batch: dict) -> dict:
        return self.model(input_ids=batch["input_ids"])


@pytest.mark.parametrize(
    "config, after",
    [
        ({}, (1.0, None)),
        ({"logit_scale": 0.5}, (0.5, None)),
        ({"logit_scale": "inv_sqrt_d_model"}, (0.25, None)),
        ({"final_logit_softcapping": 2.0, "lm_head_multiplier": 3.0}, (3.0, 2.0)),
    ],
)
def test_an_embedding_that_is_its_own_head(config, after, caplog):
    scale, cap = after

    def then(logits):
        return logits * scale if cap is None else cap * torch.tanh(logits * scale / cap)

    want, got, scorer = both(Composed(Tiny(after=then, **config)), text())
    torch.testing.assert_close(got, want, equal_nan=True, rtol=1e-5, atol=1e-6)
    assert (
        scorer.headless.refused is None and scorer.headless._after[0] == after and not said(caplog)
    )


class Adapted(torch.nn.Linear):
    """A head with an adapter, which does nothing until it has learnt."""

    def forward(self, input):
        return super().forward(input) + 0.0 * input.sum()


def needs_all(logits):
    if logits.shape[1] != LENGTH:
        raise RuntimeError("shapes do not match")
    return logits


@pytest.mark.parametrize(
    "model, reason",
    [
        (
            lambda: Tiny(torch.nn.Linear(16, VOCAB), after=lambda z: z * 1.02),
            "it changes its logits in an unknown way",
        ),
        (
            lambda: Tiny(torch.nn.Linear(16, VOCAB), after=lambda z: z.square()),
            "it changes its logits in an unknown way",
        ),
        (
            lambda: Tiny(torch.nn.Linear(16, VOCAB), after=lambda z: z[..., 1:]),
            "its logits have shape",
        ),
        (
            lambda: Tiny(torch.nn.Linear(16, VOCAB), after=needs_all),
            r"without all of its logits \(RuntimeError: shapes do not",
        ),
        (
            lambda: Tiny(torch.nn.Linear(16, VOCAB), calls=2),
            "calls its output embedding more than once",
        ),
        (
            lambda: Tiny(torch.nn.Linear(16, VOCAB), calls=1, after=None),
            "does not call its output embedding",
        ),
        (
            lambda: Tiny(Adapted(16, VOCAB)),
            "its output embedding is a Adapted with a forward of its own",
        ),
    ],
)
def test_models_that_need_their_logits(model, reason, caplog):
    model = model()
    if model.after is None:  # named, but not what it uses
        model.after, model.head, unused = lambda z: z, None, model.head
        model.get_output_embeddings = lambda: unused
    if reason.startswith("its logits have"):
        batch = text()
        batch["labels"] = batch["labels"].clamp(max=VOCAB - 2)
        scorer = build_scorer("loss", Composed(model), head="reference")
        with pytest.raises(ScoreError, match="needs each rank to have all 61 classes' logits, got"):
            score_batch(scorer, Composed(model), batch, 2)
    else:
        want, got, scorer = both(Composed(model), text())
        assert torch.equal(got.nan_to_num(), want.nan_to_num())
        again = score_batch(scorer, Composed(model), text(), 2)
        assert torch.equal(again.nan_to_num(), want.nan_to_num())
    (message,) = said(caplog)
    assert message.startswith("Scoring computes all logits, as this model needs them: ")
    assert re.search(reason, message)


def test_a_scale_that_comes_later_is_found_out(monkeypatch, caplog):
    monkeypatch.setattr(headless, "_CHECK_EVERY", 4)
    model = Tiny(torch.nn.Linear(16, VOCAB))
    want, got, scorer = both(Composed(model), text(), size=5)
    assert torch.equal(got.nan_to_num(), want.nan_to_num())
    model.after = lambda logits: logits * 5
    for _ in range(3):
        score_batch(scorer, Composed(model), text(), 5)
    assert not said(caplog)
    want, _, _ = both(Composed(model), text(), size=5)
    caplog.clear()
    got = score_batch(scorer, Composed(model), text(), 5)
    assert torch.equal(got.nan_to_num(), want.nan_to_num()) and len(said(caplog)) == 1


def test_wrong_scores_are_found_out(monkeypatch, caplog):
    """By a path that computes nonsense, as a miscompiled kernel might."""
    right = head_call.head_scores
    monkeypatch.setattr(
        head_call,
        "head_scores",
        lambda *args, **given: tuple(s * 1.1 for s in right(*args, **given)),
    )
    want, got, _ = both(build("llama"), text(), score="loss")
    assert torch.equal(got.nan_to_num(), want.nan_to_num())
    assert "the reference path's scores differ by" in said(caplog)[0]


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


def test_compiled_models_compute_their_logits(caplog):
    plain, model = build("gpt2"), build("gpt2")
    model.forward = torch.compile(model.forward, backend="eager")  # as Composer does it
    with pytest.raises(HeadError, match="the model is compiled"):
        find_head(model)
    got = score_batch(build_scorer("residual", model, head="reference"), model, text(), 5)
    want = score_batch(build_scorer("residual", plain, head=None), plain, text(), 5)
    torch.testing.assert_close(got, want, equal_nan=True)
    assert "the model is compiled" in said(caplog)[0]
    inner = build("gpt2")
    inner.model.transformer.compile(backend="eager")
    with pytest.raises(HeadError, match="the model is compiled"):
        find_head(inner)


def test_models_without_a_vocabulary_are_scored_as_ever(caplog):
    config = T.ViTConfig(
        image_size=16,
        patch_size=8,
        num_labels=5,
        hidden_size=32,
        num_hidden_layers=1,
        num_attention_heads=2,
    )
    model = wrapped(T.ViTForImageClassification(config), shift=False)
    assert build_scorer("loss", model).headless is None and not said(caplog)
    with pytest.raises(HeadError, match="ViTForImageClassification names no output embedding"):
        find_head(model)
    with pytest.raises(
        ScoreError, match="head must be one of auto, reference, chunked, triton or None, got 'fast'"
    ):
        build_scorer("loss", model, head="fast")


def test_under_autocast_the_head_is_what_autocast_makes_of_it():
    for name in ("llama", "gemma2", "gptj with a bias"):
        model = build(name)
        with torch.autocast("cpu", dtype=torch.bfloat16):
            want, got, scorer = both(model, text(), score="loss")
        assert scorer.headless.refused is None and got.dtype == torch.float32
        # Gemma caps in bf16, we in float32
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
    # No label out of range is ever looked up
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
    arguments = [[str(rank), port, str(out)] for rank, out in enumerate(outs)]
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
    """Whatever the number of samples in a forward, and however many of them have no label."""
    model, batch = build("llama"), text()
    scorer = build_scorer("loss", model, head="reference")
    whole = score_batch(scorer, model, batch, None)
    for size in (1, 3, 5):
        parts = [scorer.scores(model, part) for part in split_batch(batch, size)]
        torch.testing.assert_close(
            torch.cat(parts).detach(), whole, equal_nan=True, rtol=1e-5, atol=1e-6
        )
