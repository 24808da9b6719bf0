"""The settings of ``fidelity``."""

import pytest

from attent_stream.base.errors import FidelityError
from attent_stream.score.fidelity import FULL, AutoFidelity, Fidelity, parse_fidelity


def test_settings():
    assert parse_fidelity("full") is FULL and parse_fidelity("auto") == AutoFidelity()
    assert parse_fidelity({}) == FULL and FULL.name == "full"
    way = parse_fidelity({"layers": 2, "tokens": {"share": 0.5}, "precision": "amp_bf16"})
    assert way.name == "layers_2_strided_0.5_amp_bf16" and parse_fidelity(way) is way
    auto = parse_fidelity({"auto": {"agreement": 0.8, "ways": [{"layers": 1}, {"layers": 2}]}})
    assert auto.ways == (Fidelity(layers=1), Fidelity(layers=2)) and auto.every == 16


@pytest.mark.parametrize(
    ("value", "said"),
    [
        (
            "fast",
            "fidelity: expected full, auto, or a mapping of layers, tokens, .*, received 'fast'",
        ),
        (0.5, "received 0.5"),
        ({"layer": 2}, r"received 'layer' \(did you mean layers\?\)"),
        ({"layers": 0}, "fidelity.layers: expected an integer of at least 1, received 0"),
        ({"layers": True}, "received True"),
        ({"layers": 1.5}, "received 1.5"),
        ({"tokens": 0.5}, "fidelity.tokens: expected a mapping of share, take, received 0.5"),
        ({"tokens": {}}, "fidelity.tokens: expected share, received nothing"),
        ({"tokens": {"share": 1.0}}, "expected a number above 0 and below 1, received 1.0"),
        (
            {"tokens": {"share": float("nan")}},
            "tokens.share: expected a number above 0, received nan",
        ),
        (
            {"tokens": {"share": 0.5, "take": "last"}},
            "expected one of strided, first, received 'last'",
        ),
        (
            {"resolution": 112},
            "fidelity.resolution: expected a number above 0 and below 1, received 112",
        ),
        ({"patches": -0.5}, "fidelity.patches"),
        ({"patches": 0.5, "tokens": {"share": 0.5}}, "received both"),
        ({"precision": "fp8"}, "expected one of amp_bf16, received 'fp8'"),
        ({"proxy": {"model": 3}}, "fidelity.proxy.model: expected a folder, .*, received int"),
        (
            {"proxy": {"model": {"name": "hf_causal_lm"}}},
            "proxy.train: expected true for a model that starts with random weights",
        ),
        (
            {"proxy": {"model": "x", "lr": 0}},
            "fidelity.proxy.lr: expected a number above 0, received 0",
        ),
        (
            {"proxy": {"model": "x", "every": 0}},
            "fidelity.proxy.every: expected an integer of at least 1, received 0",
        ),
        ({"auto": {}, "layers": 1}, "received auto with layers"),
        ({"auto": {"agreement": 1}}, "fidelity.auto.agreement"),
        ({"auto": {"samples": 4}}, "integer of at least 32, received 4"),
        ({"auto": {"ways": []}}, "at least one way"),
        ({"auto": {"ways": [{}]}}, "each less than full"),
        ({"auto": {"ways": [{"layers": 1}, {"layers": 1}]}}, "each way once"),
        ({"auto": {"ways": [{"layer": 1}]}}, r"fidelity.auto.ways\[0\]: expected layers"),
    ],
)
def test_bad_settings_are_told_in_one_sentence(value, said):
    with pytest.raises(FidelityError, match=said) as caught:
        parse_fidelity(value)
    assert "\n" not in str(caught.value)
