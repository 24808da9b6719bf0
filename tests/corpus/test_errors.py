"""The corpus tool's error."""

import pytest

from attent_stream.corpus.errors import CorpusError, require


def test_a_secret_in_the_message_is_masked():
    require(True, "unused")
    with pytest.raises(CorpusError) as caught:
        require(False, "cannot write to s3://me:hush@host/x")
    assert "hush" not in str(caught.value) and "cannot write to" in str(caught.value)
