"""Small text corpora, and what a part of one must hold."""

import numpy as np
from corpus_files import read_tokens
from tokenizers import Tokenizer

from attent_stream.corpus import TextCorpusSettings, sources_from

SEQ_LEN = 32


def settings_for(tmp_path, *specs, **changes):
    values = {
        "vocab_size": 300,
        "seq_len": SEQ_LEN,
        "out": str(tmp_path / "out"),
        "progress": False,
    }
    return TextCorpusSettings(sources=sources_from(specs), **{**values, **changes})


def expected_tokens(out, texts):
    """The oracle: every document encoded by itself with the saved tokenizer, each followed
    by EOS.
    """
    tokenizer = Tokenizer.from_file(str(out / "tokenizer" / "tokenizer.json"))
    tokenizer.encode_special_tokens = True
    eos = tokenizer.token_to_id("<|endoftext|>")
    return np.concatenate([[*tokenizer.encode(text).ids, eos] for text in texts])


def check_part(out, manifest, stream, split, texts):
    part = next(p for p in manifest.parts if (p.stream, p.split) == (stream, split))
    samples = read_tokens(out / part.path)
    expected = expected_tokens(out, texts)
    assert samples.dtype == manifest.dtype and samples.shape == (part.samples, SEQ_LEN)
    assert len(expected) == part.tokens == part.samples * SEQ_LEN + part.dropped_tokens
    assert part.dropped_tokens < SEQ_LEN and part.documents == len(texts)
    np.testing.assert_array_equal(samples.ravel(), expected[: samples.size])
