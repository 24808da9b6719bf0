"""The setting ``scoring``."""

import pytest

from attent_stream.fit.scoring import Scoring
from attent_stream.score.fidelity import FULL, AutoFidelity, Fidelity, Tokens


def test_what_is_left_away_is_the_default():
    assert Scoring.parse(None) == Scoring.parse({}) == Scoring()
    assert Scoring() == Scoring(fidelity=FULL, head="auto", batch=None, ceiling=0.0, reference=None)


def test_each_setting_is_taken():
    reference = {"snapshot": "5ba"}
    given = {"head": None, "batch": 3, "ceiling": 0.05, "reference": reference}
    assert Scoring.parse(given) == Scoring(head=None, batch=3, ceiling=0.05, reference=reference)
    half = Fidelity(tokens=Tokens(share=0.5))
    assert Scoring.parse({"fidelity": {"tokens": {"share": 0.5}}}).fidelity == half


def test_a_name_is_that_of_a_fidelity():
    assert Scoring.parse("full") == Scoring()
    assert isinstance(Scoring.parse("auto").fidelity, AutoFidelity)


@pytest.mark.parametrize(
    ("value", "message"),
    [
        (3, "scoring must be a mapping of fidelity, head, batch, ceiling, reference, got 3"),
        ({"bach": 3}, "scoring has no 'bach', did you mean 'batch'"),
        ({"batch": 0}, "scoring.batch must be at least 1 sample or null, got 0"),
        ({"batch": True}, "scoring.batch must be at least 1 sample or null, got True"),
        ({"batch": 1.5}, "scoring.batch must be at least 1 sample or null, got 1.5"),
        ({"ceiling": 1}, r"scoring.ceiling must be a share in \[0, 1\), got 1"),
        ({"ceiling": "0.1"}, r"scoring.ceiling must be a share in \[0, 1\), got '0.1'"),
        ({"head": "x"}, "head must be one of auto, reference, chunked, triton or None, got 'x'"),
        ({"fidelity": "ful"}, "fidelity: expected full, auto, or a mapping"),
        ("ful", "fidelity: expected full, auto, or a mapping"),
    ],
)
def test_bad_values_are_told_in_one_sentence(value, message):
    with pytest.raises(ValueError, match=message):
        Scoring.parse(value)
