"""Token scores tile by tile, against float64 and the reference."""

import pytest
import torch
from head_cases import TOLERANCE, Case, worst
from hypothesis import given
from hypothesis import strategies as st

from attent_stream.model import reference
from attent_stream.score import chunked
from attent_stream.score.head import head_scores

pytestmark = pytest.mark.usefixtures("widened")


def test_the_compiled_pass(tiny_tiles, caplog):
    """One graph of each pass serves every number of tokens and classes (but for a single one)."""
    torch._dynamo.reset()
    # Two passes: the first tile, and later tiles relative to its bound. Capped logits need one.
    kinds = [
        (torch.bfloat16, {}, 2),
        (torch.float32, {"scale": 2.0, "softcap": 4.0, "bias": True}, 1),
    ]
    for dtype, settings, passes in kinds:
        before = torch._dynamo.utils.counters["stats"]["unique_graphs"]
        for tokens, classes in ((20, 300), (5, 90), (33, 250), (12, 131), (4, 70)):
            case = Case(
                tokens=tokens, width=16, classes=classes, dtype=dtype, seed=tokens, **settings
            )
            hidden, weight, labels, given = case.operands()
            got = head_scores(hidden, weight, labels, path="chunked", **given)
            assert worst(got, case.exact()) < TOLERANCE[dtype], case
        assert torch._dynamo.utils.counters["stats"]["unique_graphs"] - before == passes
    # Nothing fell back
    assert not any(record.name.startswith("attent_stream") for record in caplog.records)


@pytest.mark.parametrize("above", [-300.0, 30.0, 35.0, 37.0, 39.0, 41.0, 43.0, 60.0, 300.0])
def test_a_later_tile_may_lie_far_from_the_first(above, eager, tiny_tiles):
    """The sums of later tiles are relative to the first tile's bound."""
    hidden, weight, labels, settings = Case(tokens=20, width=8, classes=300, bias=True).operands()
    bias = settings["bias"].clone()
    bias[64:192] += above
    bias[192:] += 2 * above
    logits = hidden.double() @ weight.double().T + bias.double()
    got = head_scores(hidden, weight, labels, path="chunked", bias=bias)
    for one, want in zip(got, reference.token_scores(logits, labels), strict=True):
        torch.testing.assert_close(one.double(), want.double(), rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize("widened", [True], indirect=True)
def test_widened_halves_are_scored_as_the_same_numbers_in_float32(eager, tiny_tiles):
    case = Case(tokens=20, width=8, classes=300, dtype=torch.bfloat16, bias=True)
    hidden, weight, labels, settings = case.operands()
    got = head_scores(hidden, weight, labels, path="chunked", **settings)
    wide = settings | {"bias": settings["bias"].float()}
    for one, other in zip(
        got,
        head_scores(hidden.float(), weight.float(), labels, path="chunked", **wide),
        strict=True,
    ):
        torch.testing.assert_close(one, other, rtol=1e-6, atol=1e-6)


def test_where_nothing_compiles_the_pass_runs_as_it_is(monkeypatch, caplog):
    def no_compiler(*args):
        raise RuntimeError("InvalidCxxCompiler: No working C++ compiler found\nmore lines")

    monkeypatch.setattr(chunked, "_all_sums", chunked.Compiled(chunked.all_sums))
    monkeypatch.setattr(chunked._all_sums, "_compiled", no_compiler)
    case = Case(tokens=20, width=8, classes=100)
    hidden, weight, labels, _ = case.operands()
    for _ in range(2):
        assert worst(head_scores(hidden, weight, labels, path="chunked"), case.exact()) < 3e-6
    (said,) = caplog.records
    assert "torch.compile cannot compile the scoring pass here" in said.getMessage()
    assert said.getMessage().endswith(
        "(RuntimeError: InvalidCxxCompiler: No working C++ compiler found)."
    )

    def no_memory(*args):
        raise torch.OutOfMemoryError("CUDA out of memory")

    chunked._all_sums.failed = False
    monkeypatch.setattr(chunked._all_sums, "_compiled", no_memory)
    with pytest.raises(torch.OutOfMemoryError):
        head_scores(hidden, weight, labels, path="chunked")


@given(st.integers(1, 10**6), st.integers(1, 10**5), st.integers(1, 128))
def test_parts_are_about_equal(total, limit, multiple):
    size = chunked._balanced(total, limit, multiple)
    assert size % multiple == 0 and size < limit + multiple
    parts = -(-total // size)
    assert (parts - 1) * size < total <= parts * size
