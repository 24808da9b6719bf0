"""Errors in words, without secrets."""

import pytest

from attent_stream.base import errors
from attent_stream.base.errors import AttentError, ScoreError, StoreError, in_words


def test_an_error_in_words_is_one_line():
    assert in_words(OSError("no\n  such   file")) == "OSError: no such file"
    assert in_words(KeyError()) == "KeyError"
    assert in_words(ScoreError("a\nb")) == "a b"
    assert in_words(ValueError("x" * 300)) == "ValueError: " + "x" * 200
    assert in_words(ScoreError("x" * 300)) == "x" * 300


@pytest.mark.parametrize("name", [name for name in vars(errors) if name.endswith("Error")])
def test_running_errors_mask_secrets(name):
    kind = getattr(errors, name)
    text = str(kind("sftp://me:hush@host"))
    assert ("hush" in text) != issubclass(kind, AttentError)
    assert issubclass(kind, (AttentError, ValueError))


def test_a_damaged_or_stale_file_is_a_store_error():
    assert issubclass(errors.StaleIndexError, errors.CorruptError)
    assert issubclass(errors.CorruptError, StoreError)
