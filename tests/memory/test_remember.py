"""The setting ``remember``: every mistake is one sentence."""

import pytest

from attent_stream.memory.remember import Remember


def test_names_and_mappings():
    assert Remember.parse(None) == Remember()
    assert Remember.parse("always") == Remember(when="always")
    assert Remember.parse({"per": "shard", "limit": "1kb"}).bytes == 1024


@pytest.mark.parametrize(
    ("value", "says"),
    [
        ("alwys", "remember.when has no 'alwys', did you mean 'always'"),
        (3, "remember must be one of never, warmup, always or a mapping of when, per, limit"),
        ({"per": "sample", "size": 3}, "remember has no 'size'"),
        ({"detrend": 1}, "remember.detrend must be true, false or null, got 1"),
        ({"limit": "many"}, "remember.limit must be bytes or a size such as '2gb', got 'many'"),
        ({"limit": 0}, "remember.limit must be at least 1 byte, got 0"),
        ({"limit": True}, "remember.limit must be"),
        ({"per": 2}, "remember.per must be a name, got 2"),
    ],
)
def test_mistakes_are_named(value, says):
    with pytest.raises(ValueError, match=says):
        Remember.parse(value)
