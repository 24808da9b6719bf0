"""Every path of the output head against float64, on odd shapes, ties, infinities and masks."""

import logging

import pytest
import torch
from head_cases import CASES, TOLERANCE, Case, worst
from torch import distributed as dist
from torch.distributed.tensor import DeviceMesh, Shard, distribute_tensor
from torch.utils._python_dispatch import TorchDispatchMode

from attent_stream.base.errors import ScoreError
from attent_stream.model import reference
from attent_stream.score import head
from attent_stream.score.head import PATHS, head_scores

pytestmark = pytest.mark.usefixtures("widened")


CPU_PATHS = ["reference", "chunked"]


@pytest.mark.parametrize(
    ("path", "widened"),
    [("reference", False), ("chunked", False), ("chunked", True)],
    indirect=["widened"],
)
def test_every_path_gives_the_scores_of_the_logits(path, widened, eager, tiny_tiles):
    for case in CASES:
        hidden, weight, labels, settings = case.operands()
        for compact in (False, True):
            got = head_scores(hidden, weight, labels, path=path, compact=compact, **settings)
            assert [scores.dtype for scores in got] == [torch.float32] * 2
            assert worst(got, case.exact()) < TOLERANCE[case.dtype], case
            assert not any(scores[1::3].any() for scores in got)


@pytest.mark.parametrize("path", CPU_PATHS)
@pytest.mark.parametrize("poison", [float("nan"), float("inf"), float("-inf")])
def test_what_is_not_finite_spoils_its_own_token_only(path, poison, eager, tiny_tiles):
    case = Case(tokens=30, width=8, classes=150, bias=True)
    hidden, weight, labels, settings = case.operands()
    hidden[3, 5] = poison
    hidden[4, 5] = poison  # ignored: label -100
    nll, residual_sq = head_scores(hidden, weight, labels, path=path, compact=False, **settings)
    clean = [i for i in range(30) if i != 3]
    assert not nll[3].isfinite() and not residual_sq[3].isfinite()
    assert nll[4] == residual_sq[4] == 0
    assert (
        worst((nll[clean], residual_sq[clean]), tuple(scores[clean] for scores in case.exact()))
        < 3e-6
    )


@pytest.mark.parametrize("path", CPU_PATHS)
def test_classes_that_are_ruled_out(path, eager, tiny_tiles):
    """A bias of -inf, as for padding of the vocabulary, on whole tiles and on a label."""
    hidden, weight, labels, _ = Case(tokens=30, width=8, classes=300).operands()
    bias = torch.zeros(300)
    bias[100:] = float("-inf")
    labels[0], labels[2] = 7, 200
    got = head_scores(hidden, weight, labels, bias=bias, path=path)
    want = reference.token_scores(torch.nn.functional.linear(hidden, weight, bias).double(), labels)
    assert got[0][0].isfinite() and got[0][2] == float("inf") and got[1][2].isfinite()
    for mine, theirs in zip(got, want, strict=True):
        torch.testing.assert_close(mine.double(), theirs, rtol=2e-6, atol=2e-6)
    bias.fill_(float("inf"))
    assert not any(
        scores[0].isfinite() for scores in head_scores(hidden, weight, labels, bias=bias, path=path)
    )


@pytest.mark.parametrize("path", CPU_PATHS)
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_ties(path, dtype, eager, tiny_tiles):
    """All logits alike: ``nll = log V`` and ``residual^2 = (1 - 1/V)^2 + (V - 1) / V^2``."""
    labels = torch.arange(9) * 30
    nll, residual_sq = head_scores(
        torch.ones(9, 4).to(dtype), torch.ones(257, 4).to(dtype), labels, path=path
    )
    torch.testing.assert_close(nll, torch.full((9,), 257.0).log(), rtol=1e-6, atol=0)
    torch.testing.assert_close(
        residual_sq, torch.full((9,), (256 / 257) ** 2 + 256 / 257**2), rtol=1e-6, atol=0
    )


@pytest.mark.parametrize("path", CPU_PATHS)
def test_a_token_that_is_almost_sure_keeps_its_digits(path, eager, tiny_tiles):
    hidden, weight = torch.tensor([[1.0]]), torch.zeros(200, 1)
    weight[150] = 20.0
    nll, residual_sq = head_scores(hidden, weight, torch.tensor([150]), path=path)
    others = torch.tensor(199.0, dtype=torch.float64) * torch.exp(
        torch.tensor(-20.0, dtype=torch.float64)
    )
    torch.testing.assert_close(nll.double()[0], torch.log1p(others), rtol=1e-5, atol=0)
    expected = (others**2 + others**2 / 199) / (1 + others) ** 2
    torch.testing.assert_close(residual_sq.double()[0], expected, rtol=1e-5, atol=0)


@pytest.mark.parametrize("path", CPU_PATHS)
def test_nothing_to_score(path, eager):
    hidden, weight, labels, _ = Case(tokens=6, width=8, classes=20).operands()
    for compact in (False, True):
        for some in (labels[:0], torch.full_like(labels, -100)):
            got = head_scores(hidden[: len(some)], weight, some, path=path, compact=compact)
            assert all(torch.equal(scores, torch.zeros(len(some))) for scores in got)


class Largest(TorchDispatchMode):
    """The largest tensor that any operation makes."""

    elements = 0

    def __torch_dispatch__(self, function, types, args=(), kwargs=None):
        out = function(*args, **(kwargs or {}))
        if isinstance(out, torch.Tensor):
            self.elements = max(self.elements, out.numel())
        return out


@pytest.mark.parametrize("path", CPU_PATHS)
def test_the_logits_are_never_held(path, eager, tiny_tiles):
    hidden, weight, labels, settings = Case(tokens=200, width=8, classes=1000, bias=True).operands()
    with Largest() as largest:
        head_scores(hidden, weight, labels, path=path, **settings)
    assert largest.elements <= weight.numel()  # 8,000; the logits are 200,000


def test_nothing_is_changed_and_nothing_learns(eager, tiny_tiles):
    hidden, weight, labels, settings = Case(tokens=20, width=8, classes=100, bias=True).operands()
    weight.requires_grad_()
    copies = [tensor.detach().clone() for tensor in (hidden, weight, labels, settings["bias"])]
    for path in CPU_PATHS:
        # The caller applies autocast, by logit_dtype
        with torch.autocast("cpu", dtype=torch.bfloat16):
            got = head_scores(hidden, weight, labels, path=path, **settings)
        assert not any(scores.requires_grad for scores in got) and weight.grad is None
        for now, before in zip((hidden, weight, labels, settings["bias"]), copies, strict=True):
            assert torch.equal(now, before)
        assert worst(got, Case(tokens=20, width=8, classes=100, bias=True).exact()) < 3e-6


def test_logits_in_another_dtype(eager):
    hidden, weight, labels, settings = Case(tokens=20, width=8, classes=100, bias=True).operands()
    halves = head_scores(
        hidden.bfloat16(),
        weight.bfloat16(),
        labels,
        bias=settings["bias"].bfloat16(),
        path="chunked",
    )
    got = head_scores(
        hidden, weight, labels, bias=settings["bias"], logit_dtype=torch.bfloat16, path="chunked"
    )
    assert all(torch.equal(a, b) for a, b in zip(got, halves, strict=True))
    with pytest.raises(
        ValueError, match="weight must be torch.bfloat16 as hidden is, or logit_dtype be set"
    ):
        head_scores(hidden.bfloat16(), weight, labels)


def test_float64_is_scored_in_float64():
    case = Case(tokens=20, width=8, classes=100, dtype=torch.float64, bias=True)
    hidden, weight, labels, settings = case.operands()
    nll, residual_sq = head_scores(hidden, weight, labels, compact=False, **settings)
    for got, want in zip((nll, residual_sq), case.exact(), strict=True):
        torch.testing.assert_close(got, want, rtol=1e-12, atol=1e-12)


@pytest.mark.parametrize(
    "change, message",
    [
        ({"path": "fast"}, "path must be one of auto, reference, chunked, triton, got 'fast'"),
        ({"labels": torch.tensor([0, 100])}, r"labels must be in \[0, 100\) or -100, got 0 to 100"),
        ({"labels": torch.tensor([0, -1])}, r"labels must be in \[0, 100\) or -100, got -1 to 0"),
        ({"labels": torch.tensor([0])}, r"labels must have shape \(2,\), got \(1,\)"),
        ({"weight": torch.zeros(100, 4)}, r"must have the same D, got \(2, 8\) and \(100, 4\)"),
        ({"bias": torch.zeros(8)}, r"bias must have shape \(100,\), got \(8,\)"),
        ({"softcap": 0.0}, "softcap must be positive and finite, got 0.0"),
        ({"scale": -1.0}, "scale must be positive and finite, got -1.0"),
    ],
)
def test_mistakes_are_named(change, message):
    arguments = {
        "hidden": torch.zeros(2, 8),
        "weight": torch.zeros(100, 8),
        "labels": torch.zeros(2).long(),
    } | change
    with pytest.raises(ValueError, match=message):
        head_scores(**arguments)


def test_a_split_weight_is_refused():
    dist.init_process_group("gloo", store=dist.HashStore(), rank=0, world_size=1)
    try:
        weight = distribute_tensor(torch.zeros(100, 8), DeviceMesh("cpu", [0]), [Shard(0)])
        with pytest.raises(
            ScoreError, match=r"tensor parallelism\): scores of a split head are not supported"
        ):
            head_scores(torch.zeros(2, 8), weight, torch.zeros(2).long())
    finally:
        dist.destroy_process_group()


def test_little_goes_to_the_reference_and_much_to_the_tiles(monkeypatch):
    taken = []
    for name in CPU_PATHS:
        monkeypatch.setitem(
            PATHS, name, lambda *args, name=name, **given: taken.append(name) or args[:2]
        )
    hidden, weight = torch.zeros(2**12, 4), torch.zeros(2**10, 4)
    for dtype, tokens in (
        (torch.float32, 2**12 - 1),
        (torch.float32, 2**12),
        (torch.float64, 2**12),
    ):
        head_scores(hidden[:tokens].to(dtype), weight.to(dtype), torch.zeros(tokens).long())
    assert taken == ["reference", "chunked", "reference"]


def test_the_fastest_path_that_is_right_is_taken(monkeypatch, caplog):
    caplog.set_level(logging.INFO)
    hidden, weight, labels, given = Case(tokens=20, width=8, classes=100, bias=True).operands()
    right = PATHS["reference"]

    def wrong(*args, **given):
        nll, residual_sq = right(*args, **given)
        return nll + 0.1, residual_sq

    def fails(*args, **given):
        raise RuntimeError("no such instruction")

    for name, path in (
        ("right", right),
        ("slow", lambda *a, **g: right(*a, **g)),
        ("wrong", wrong),
        ("fails", fails),
    ):
        monkeypatch.setitem(PATHS, name, path)
    times = iter([2.0, 1.0])
    names = ["slow", "wrong", "fails", "right"]
    assert (
        head.measured(names, hidden, weight, labels, given, lambda call: call() and next(times))
        == "right"
    )
    said = [record.getMessage() for record in caplog.records]
    assert said == [
        "The wrong path of the output head is not used: its scores differ by 0.1.",
        "The fails path of the output head is not used: RuntimeError: no such instruction.",
        "Output head of 100 x 8 for 20 tokens: right (slow 2000.00 ms, right 1000.00 ms).",
    ]
    assert head.measured(["fails"], hidden, weight, labels, given, lambda call: 1.0) == "reference"
