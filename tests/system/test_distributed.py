"""AtteNT under DDP, FSDP, torch.compile, autocast and microbatching.

Oracles: one rank with a batch of 2N against two ranks with N each, a plain run, and losses in
float64.
"""

import contextlib

import numpy as np
import pytest
import torch
from composer import Algorithm, Event
from composer.models import HuggingFaceModel
from corpora import write_tokens
from fits import fit as fit_here
from fits import make_loader, make_model
from ranks_fit import LENGTH, VOCAB, energy, fit
from ranks_jobs import RECORD, rate, run_ranks, settings

from attent_stream import AtteNT
from attent_stream.base.errors import AttentError, ScoreError
from attent_stream.model.guard import untouched
from attent_stream.score.scorer import Scorer

pytestmark = pytest.mark.processes

# 12 rows of 8 and a rest of 5, which Streaming fills up to 3 a rank; windows of 5, 5 and 2 rows
SAMPLES = 101
# What a run must share, bit for bit, with one that trains on the same
SAME = ("rows", "losses", "grads", "model")


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    return write_tokens(
        tmp_path_factory.mktemp("tokens") / "data", SAMPLES, length=LENGTH, vocab=VOCAB
    )


TAUGHT = {"select": "hard", "keep": 0.5}


@pytest.fixture(scope="module")
def alone(folder):
    """One rank, the whole batch at once."""
    data = settings(folder, 1)
    logs = {
        "taught": fit(data=data, attent=TAUGHT, duration="2ep"),
        "record": fit(data=data, attent=RECORD, duration="2ep", reference=True),
    }
    margins = [
        margin for log in logs.values() for _, _, margin in log["choices"] if margin is not None
    ]
    assert min(margins) > 1e-5  # so that float noise, 3e-7 here, cannot change a choice
    return logs


def jobs_of(folder: str, parallel: str | None, backend: str | None = None) -> dict[str, dict]:
    common = {
        "data": settings(folder, 2),
        "parallel": parallel,
        "backend": backend,
        "lr": rate(parallel),
    }
    plain = common | {"dropout": 0.1}
    scored = {"attent": {"select": "hard", "keep": 1.0}, "cls": "ScoresLessons"}
    # Stock Composer cannot compile FSDP1 with gradient accumulation: torch 2.7 trips over the
    # gradients of the first part.
    microbatch = None if parallel == "fsdp1" and backend else 3
    return {
        "taught": common | {"attent": TAUGHT, "duration": "2ep", "microbatch": microbatch},
        "plain": plain,
        "all": plain | {"attent": {"select": "hard", "keep": 1.0}},
        "scored": plain | scored,
    }


def check_taught(logs: list[dict], alone: dict) -> None:
    """Each step's global batch, its loss and all counts are those of one rank."""
    expected, first = alone["taught"], logs[0]["taught"]
    for log in logs:
        log = log["taught"]
        assert log["losses"] == first["losses"]
        assert log["forwards"] == first["forwards"]  # at each step, not only in total
        assert [choice[:2] for choice in log["choices"]] == [
            choice[:2] for choice in expected["choices"]
        ]
        for count in ("candidates", "lessons", "dropped", "nonfinite"):
            assert log["metrics"][f"attent/{count}"] == expected["metrics"][f"attent/{count}"]
    steps = [
        sorted(sum(parts, []))
        for parts in zip(*(log["taught"]["rows"] for log in logs), strict=True)
    ]
    assert steps == [sorted(batch) for batch in expected["rows"]]
    assert [len(rows) for rows in first["rows"]] == ([4] * 9 + [3]) * 2
    assert first["metrics"]["attent/candidates"] == 2 * 7 * 8
    np.testing.assert_allclose(first["losses"], expected["losses"], rtol=2e-6)


def check_untouched(log: dict, name: str = "") -> None:
    """Keeping everything, and scoring on top of it, trains to the same bits as no AtteNT at all."""
    plain = log[name + "plain"]
    for other in ("all", "scored"):
        if name + other in log:
            assert {key: log[name + other][key] for key in SAME} == {
                key: plain[key] for key in SAME
            }
    assert log[name + "scored"]["forwards"] == list(range(1, len(plain["rows"]) + 1))
    assert len(set(plain["grads"])) == len(plain["grads"])


def check_record(logs: list[dict], alone: dict) -> None:
    """The ledger of every rank has each lesson's own loss, from gradient accumulation on both."""
    expected = {}
    for log in logs:
        expected |= log["record"]["expected"]
    assert expected.keys() == alone["record"]["expected"].keys()
    ids = [int(sample) for sample in expected]
    for log in logs:
        ledger = np.array(log["record"]["ledger"])
        np.testing.assert_allclose(ledger[ids], [*expected.values()], rtol=5e-4)  # of 16 bits
        assert ledger.tolist() == logs[0]["record"]["ledger"]
        assert [choice[:2] for choice in log["record"]["choices"]] == [
            c[:2] for c in alone["record"]["choices"]
        ]
    np.testing.assert_allclose(logs[0]["record"]["losses"], alone["record"]["losses"], rtol=2e-6)


def record_job(folder: str, parallel: str | None) -> dict:
    job = {"data": settings(folder, 2), "attent": RECORD, "duration": "2ep", "parallel": parallel}
    return job | {"microbatch": 3, "reference": True, "lr": rate(parallel)}


def small_images(folder: str, parallel: str | None) -> dict:
    job = {"data": settings(folder, 2), "parallel": parallel, "model": "vit"}
    chosen = {"select": "hard", "keep": 0.5, "score": "loss"}
    return {
        "large": job | {"attent": chosen},
        "small": job | {"attent": chosen | {"resolution": 0.5}},
    }


def check_small_images(logs: list[dict]) -> None:
    assert {len(rows[0][0]) for log in logs for rows in log["small"]["rows"]} == {8}
    assert logs[0]["small"]["losses"] == logs[1]["small"]["losses"] != logs[0]["large"]["losses"]
    assert (
        logs[0]["small"]["choices"] == logs[1]["small"]["choices"] and logs[0]["small"]["choices"]
    )


@pytest.mark.timeout(900)  # a minute, but for a machine that others use
def test_ddp(folder, alone, tmp_path):
    norm = {"data": settings(folder, 2), "model": "norm", "dropout": 0.1}
    # Memory runs out on one rank only: that rank makes more forwards than the other, and all is as
    # if it had not.
    short = {"data": settings(folder, 2)}
    jobs = jobs_of(folder, None) | {
        "record": record_job(folder, None),
        "norm plain": norm,
        "norm scored": norm | {"attent": {"select": "hard", "keep": 1.0}, "cls": "ScoresLessons"},
        "enough": short
        | {"attent": {"select": "hard", "keep": 0.5, "score": "energy", "scoring": {"batch": 2}}},
        "short": short | {"attent": {"select": "hard", "keep": 0.5, "score": "short_on_rank_1"}},
        "skips": short
        | {"attent": {"keep": 1.0, "select": "random", "positions": 0.5}, "microbatch": 1},
    }
    logs = run_ranks(tmp_path, small_images(folder, None) | jobs)
    check_small_images(logs)
    assert logs[0]["skips"]["model"] == logs[1]["skips"]["model"] != logs[0]["plain"]["model"]
    check_taught(logs, alone)
    check_record(logs, alone)
    for log in logs:
        check_untouched(log)
        check_untouched(log, "norm ")
        assert {key: log["short"][key] for key in SAME} == {key: log["enough"][key] for key in SAME}
    assert set(logs[0]["short"]["samples"]) == {4}
    assert logs[1]["short"]["samples"] == [4] + [2] * (2 * len(logs[0]["short"]["samples"]))


SHARDED = ["fsdp1_sharded", "fsdp2_sharded"]


@pytest.mark.slow
@pytest.mark.timeout(900)
@pytest.mark.parametrize(
    ("parallel", "order"),
    [(None, "streaming"), *((name, order) for name in SHARDED for order in ("streaming", "lazy"))],
)
def test_resumed_from_a_checkpoint(folder, tmp_path, parallel, order):
    """In the middle of a window, at an epoch's border and in the middle of an epoch; also from
    checkpoints that all ranks write together, each its shards. With dropout: each rank goes on with
    its own random numbers.
    """
    attent = {
        "keep": 0.5,
        "score": "loss",
        "select": "soft",
        "remember": "always",
        "interval": "1dur",
    }
    pieces = {"schedule": "step", "from": 0.25, "to": 1.0, "over": "0.8dur", "stages": 2}
    attent["arrange"] = {"pieces": pieces, "balance": "tokens"}
    data = settings(folder, 2) | {"order": order}
    common = {
        "data": data,
        "parallel": parallel,
        "attent": attent,
        "duration": "2ep",
        "dropout": 0.1,
    }
    saved = str(tmp_path / "saved")
    jobs = {"whole": common | {"saving": {"save_folder": saved, "save_interval": "1ba"}}}
    places = {"ep0-ba3": 3, "ep0-ba10": 10, "ep1-ba13": 13}
    for name, batches in places.items():
        path = f"{saved}/{name}" + ("" if parallel else "-rank0.pt")
        jobs[str(batches)] = common | {"saving": {"load_path": path}}
    for log in run_ranks(tmp_path, jobs):
        assert not [job["error"] for job in log.values() if "error" in job]
        for batches in places.values():
            resumed, whole = log[str(batches)], log["whole"]
            assert resumed["rows"] == whole["rows"][batches:], batches
            assert resumed["losses"] == whole["losses"][batches:], batches
            assert resumed["model"] == whole["model"], batches


@pytest.mark.slow
@pytest.mark.timeout(900)
@pytest.mark.parametrize("parallel", ["fsdp1", "fsdp2"])
def test_fsdp(folder, alone, tmp_path, parallel):
    jobs = jobs_of(folder, parallel) | {
        "record": record_job(folder, parallel) | {"workers": 1},
        "auto": {"data": settings(folder, 2), "parallel": parallel, "attent": TAUGHT, "auto": True},
        "positions": {
            "data": settings(folder, 2),
            "parallel": parallel,
            "attent": {"keep": 1.0, "select": "random", "positions": 0.5},
        },
        "short": {
            "data": settings(folder, 2),
            "parallel": parallel,
            "attent": {"select": "hard", "keep": 0.5, "score": "short_of_memory"},
        },
    }
    logs = run_ranks(tmp_path, small_images(folder, parallel) | jobs)
    check_small_images(logs)
    assert (
        logs[0]["positions"]["losses"]
        == logs[1]["positions"]["losses"]
        != logs[0]["plain"]["losses"]
    )
    check_taught(logs, alone)
    check_record(logs, alone)
    for log in logs:
        check_untouched(log)
        # What fits is not known before the first batch, and a sharded model has one try only.
        first = log["auto"]["forwards"][0]
        assert first > 0
        assert log["auto"]["samples"] == [1] * first + [4] * (7 - first // 4)
        assert log["short"]["error"].startswith(
            "AttentError: scoring ran out of memory with 4 samples at once"
        )
        assert "set score_batch to less than 4" in log["short"]["error"]


@pytest.mark.slow
@pytest.mark.timeout(900)
@pytest.mark.parametrize("parallel", [None, "fsdp1", "fsdp2"])
def test_compiled(folder, alone, tmp_path, parallel):
    jobs = jobs_of(folder, parallel, "count")
    if parallel is None:
        norm = {"data": settings(folder, 2), "model": "norm", "dropout": 0.1, "backend": "count"}
        jobs |= {
            "norm plain": norm,
            "norm scored": norm
            | {"attent": {"select": "hard", "keep": 1.0}, "cls": "ScoresLessons"},
        }
    logs = run_ranks(tmp_path, jobs)
    check_taught(logs, alone)
    for log in logs:
        check_untouched(log)
        # The scoring forward is compiled too, and once: it adds less than the training forward's
        # own graphs.
        assert log["plain"]["graphs"] < log["scored"]["graphs"] <= 2 * log["plain"]["graphs"]
        if parallel is None:
            check_untouched(log, "norm ")


@pytest.mark.slow
def test_compiled_alone(folder, alone):
    log = fit(
        data=settings(folder, 1), attent=TAUGHT, duration="2ep", backend="count", microbatch=5
    )
    assert log["rows"] == alone["taught"]["rows"]
    np.testing.assert_allclose(log["losses"], alone["taught"]["losses"], rtol=2e-6)


def test_compiled_by_aot_autograd(folder):
    runs = {
        "plain": {},
        "scored": {"attent": {"select": "hard", "keep": 1.0}, "cls": "ScoresLessons"},
    }
    common = {"data": settings(folder, 1), "model": "norm", "dropout": 0.1, "backend": "aot_eager"}
    check_untouched({name: fit(**common, **run) for name, run in runs.items()})


@pytest.mark.parametrize("microbatch", [3, 1])
def test_gradient_accumulation_records_each_lesson(folder, alone, microbatch):
    log = fit(
        data=settings(folder, 1),
        attent=RECORD,
        duration="2ep",
        microbatch=microbatch,
        reference=True,
    )
    check_record([{"record": log}], alone)
    assert set(log["sizes"]) == {microbatch}


def test_warmup_records_the_rest_of_an_epoch_too(folder):
    """Or the windows that its samples come into in the next epoch would have to be scored."""
    attent = {
        "select": "hard",
        "keep": 0.5,
        "score": "loss",
        "interval": "1dur",
        "warmup": "1ep",
        "remember": "warmup",
    }
    log = fit(data=settings(folder, 1), attent=attent, duration="3ep")
    assert log["samples"] == []
    assert [by for by, *_ in log["choices"]] == ["all"] * 3 + ["remembered"] * 6


class Cut(Algorithm):
    """Trains on the first two samples of each microbatch only."""

    def match(self, event, state):
        return event == Event.BEFORE_FORWARD

    def apply(self, event, state, logger):
        state.batch = {name: tensor[:2] for name, tensor in state.batch.items()}


def test_record_among_algorithms_that_change_batches(folder):
    attent = AtteNT(select="hard", keep=0.5, score="loss", remember="always")
    with pytest.raises(AttentError, match="each of the batch's 4 lessons, got 2"):
        fit_here(make_loader(folder), [attent, Cut()])


def test_auto_microbatching(folder, monkeypatch):
    """A device on which a training forward fits two samples of four: the trainer finds out, and
    scoring follows.
    """
    forward = HuggingFaceModel.forward

    def tight(self, batch):
        if self.training and len(batch["input_ids"]) > 2:
            raise RuntimeError("CUDA out of memory. Tried to allocate 1.00 GiB.")
        return forward(self, batch)

    job = {"data": settings(folder, 2), "attent": RECORD, "reference": True}
    expected = fit(**job, microbatch=2)
    monkeypatch.setattr(HuggingFaceModel, "forward", tight)
    log = fit(**job, auto=True)
    assert log["rows"] == expected["rows"]
    assert log["losses"] == expected["losses"]
    np.testing.assert_allclose(log["ledger"], expected["ledger"], rtol=1e-3)  # of 16 bits
    first = log["forwards"][0]
    assert first > 0 and log["samples"] == [4] * first + [2] * (len(log["samples"]) - first)


@pytest.fixture
def bf16(monkeypatch):
    """Composer refuses bf16 on the CPU: here it gets CPU autocast where it would have CUDA's."""

    @contextlib.contextmanager
    def precision(precision, *args, **kwargs):
        assert precision == "amp_bf16"
        with torch.autocast("cpu", dtype=torch.bfloat16):
            yield

    monkeypatch.setattr("composer.trainer.trainer._validate_precision", lambda *args: None)
    monkeypatch.setattr("composer.trainer.trainer.get_precision_context", precision)
    monkeypatch.setattr("attent_stream.fit.candidate_scorer.get_precision_context", precision)


def test_autocast(folder, bf16, monkeypatch):
    """Candidates are scored as they would be trained on; the weights cast for it are not kept for
    the training.
    """
    dtypes = set()
    from_outputs = Scorer.from_outputs

    def watched(self, model, outputs, batch):
        dtypes.add(outputs["logits"].dtype)
        scores = from_outputs(self, model, outputs, batch)
        assert scores.dtype == torch.float32
        logits = outputs["logits"].double()[:, :-1].log_softmax(-1)
        expected = -logits.gather(-1, batch["labels"][:, 1:, None])[..., 0].mean(1)
        torch.testing.assert_close(scores.double(), expected, rtol=1e-6, atol=0)
        return scores

    monkeypatch.setattr(Scorer, "from_outputs", watched)
    scored = {"attent": {"select": "hard", "keep": 1.0, "score": "loss"}, "cls": "ScoresLessons"}
    runs = {"plain": {}, "all": {"attent": {"select": "hard", "keep": 1.0}}, "scored": scored}
    logs = {
        name: fit(data=settings(folder, 1), dropout=0.1, precision="amp_bf16", **run)
        for name, run in runs.items()
    }
    check_untouched(logs)
    assert dtypes == {torch.bfloat16}
    log = fit(
        data=settings(folder, 1), attent=RECORD, precision="amp_bf16", microbatch=3, reference=True
    )
    ids = [int(sample) for sample in log["expected"]]
    np.testing.assert_allclose(np.array(log["ledger"])[ids], [*log["expected"].values()], rtol=1e-2)


def test_out_of_memory_halves_what_is_scored_at_once(folder, caplog):
    data = settings(folder, 1)
    expected = fit(
        data=data,
        attent={"select": "hard", "keep": 0.5, "score": "energy", "scoring": {"batch": 2}},
    )
    log = fit(data=data, attent={"select": "hard", "keep": 0.5, "score": "short_of_memory"})
    assert {key: log[key] for key in SAME} == {key: expected[key] for key in SAME}
    assert log["samples"] == [8, 4] + [2] * len(expected["samples"])  # kept for the rest of the run
    said = [
        record.getMessage()
        for record in caplog.records
        if record.name == "attent_stream.score.microbatches"
    ]
    assert said == [
        "Scoring ran out of memory with 8 samples at once: 2 from now on (score_batch: 2 starts "
        "so)."
    ]


def no_memory(model, batch):
    raise torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 1.00 GiB.")


def test_out_of_memory_with_one_sample(folder):
    with pytest.raises(AttentError, match="out of memory with a single sample"):
        fit_here(make_loader(folder), [AtteNT(select="hard", keep=0.5, score=no_memory)])


def no_such_key(model, batch):
    return batch["missing"]


@pytest.mark.parametrize(
    ("score", "message"),
    [
        (
            no_such_key,
            r"score 'no_such_key' raised KeyError on keys \['attention_mask', 'input_ids', "
            r"'labels'\]: 'missing'",
        ),
        (
            lambda model, batch: torch.zeros(3),
            r"must return a float tensor of shape \(4,\), got torch.float32 of shape \(3,\)",
        ),
        (
            lambda model, batch: torch.tensor(1.0),
            r"must return a float tensor of shape \(4,\), got torch.float32 of shape \(\)",
        ),
        (
            lambda model, batch: batch["labels"][:, 0],
            "must return a float tensor of shape .*, got torch.int64",
        ),
        (lambda model, batch: [0.0] * 4, "must return a float tensor of shape .*, got a list"),
        (lambda model, batch: None, "must return a float tensor of shape .*, got a NoneType"),
    ],
)
def test_bad_callables(folder, score, message):
    with pytest.raises(ScoreError, match=message):
        fit_here(make_loader(folder), [AtteNT(select="hard", keep=0.5, score=score)])


def test_not_finite_scores_are_counted_and_not_taught(folder):
    """Of each candidate batch of four, one NaN and one inf: the other half is what a keep of a half
    takes.
    """
    seen = []

    def score(model, batch):
        scores = energy(model, batch)
        scores[0], scores[1] = float("nan"), float("inf")
        seen.extend(batch["input_ids"][:2].tolist())
        return scores

    watch, memory, _ = fit_here(make_loader(folder), [AtteNT(select="hard", keep=0.5, score=score)])
    assert (
        memory.data["attent/nonfinite"][-1][1]
        == len(seen)
        == memory.data["attent/candidates"][-1][1] / 2
    )
    taught = [row for batch in watch.tokens[4:] for row in batch]
    assert not [row for row in taught if row in seen]
    assert all(np.isfinite(watch.losses))


def test_model_is_as_it_was_after_an_error():
    """Modes, gradients and DDP's pending broadcast come back when scoring raises."""
    model = make_model()
    model.model.transformer.drop.eval()
    for param in model.parameters():
        param.grad = torch.ones_like(param)
    modes, grads = (
        [module.training for module in model.modules()],
        [param.grad for param in model.parameters()],
    )
    with pytest.raises(ZeroDivisionError), untouched(model):
        assert not model.training and all(param.grad is None for param in model.parameters())
        raise ZeroDivisionError
    assert [module.training for module in model.modules()] == modes
    assert all(param.grad is grad for param, grad in zip(model.parameters(), grads, strict=True))
