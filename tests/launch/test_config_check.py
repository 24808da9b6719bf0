"""Plain values against type hints."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from attent_stream.launch.config_check import ConfigError, checked_arguments, nearest, typed

SCALARS = {
    bool: st.booleans(),
    int: st.integers(),
    float: st.floats(allow_nan=False),
    str: st.text(max_size=5),
}


@given(st.data(), st.sampled_from(list(SCALARS)), st.sampled_from(list(SCALARS)))
def test_scalars_against_isinstance(data, hint, kind):
    """The oracle: exact types pass unchanged; beyond them only int for float, and a whole float for
    int.
    """
    value = data.draw(SCALARS[kind])
    widened = (hint is float and kind is int) or (
        hint is int and kind is float and value.is_integer()
    )
    if hint is kind or widened:
        assert typed(value, hint, "k") == hint(value) and type(typed(value, hint, "k")) is hint
    else:
        with pytest.raises(ConfigError, match=f"^k: expected {hint.__name__}, got {kind.__name__}"):
            typed(value, hint, "k")


@given(st.data())
def test_unions_keep_an_exact_member(data):
    value = data.draw(st.one_of(*SCALARS.values(), st.none()))
    assert typed(value, bool | int | float | str | None) is value


def test_typed_containers():
    assert typed([1, 2], tuple[float, float], "k") == (1.0, 2.0)
    assert typed([1, 2], list[float], "k") == [1.0, 2.0]
    assert typed({"a": 1}, dict[str, float], "k") == {"a": 1.0}
    with pytest.raises(ConfigError, match=r"^k: expected a list of 2 values"):
        typed([1, 2, 3], tuple[float, float], "k")
    with pytest.raises(ConfigError, match=r"^k\[1\]: expected float, got str 'x'"):
        typed([1, "x"], list[float], "k")
    with pytest.raises(ConfigError, match=r"^k\.a: expected int"):
        typed({"a": "x"}, dict[str, int], "k")


def test_checked_arguments_with_open_signatures():
    def takes_any(first, *, second=2, **rest):
        return first, second, rest

    assert checked_arguments(takes_any, {"second": 3, "third": 4}, "p", supplied=("first",)) == {
        "second": 3,
        "third": 4,
    }
    with pytest.raises(ConfigError, match=r"^p\.first: missing$"):
        checked_arguments(takes_any, {}, "p")


def test_nearest_lists_all_when_nothing_is_close():
    assert nearest("shufle", ["shuffle", "split"]) == "did you mean 'shuffle'?"
    assert nearest("qqqq", ["b", "a"]) == "expected one of a, b"
