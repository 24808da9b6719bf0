"""Tokenizing batches, and the sample that a tokenizer is trained on."""

import json

from corpus_files import documents, write_jsonl

from attent_stream.corpus.encode import EncodeTask, sample_texts
from attent_stream.corpus.pack import split_of
from attent_stream.corpus.sources import Source, find_files
from attent_stream.corpus.tokenizer import train_tokenizer


def test_tokenizer_sample_is_bounded_and_spread(tmp_path, monkeypatch):
    texts = documents(400)
    for i in range(40):
        write_jsonl(tmp_path / f"{i:02}.jsonl", texts[10 * i : 10 * i + 10])
    files = find_files(Source(name="a", paths=(str(tmp_path),)))
    budget = sum(len(t.encode()) for t in texts) // 4
    got = list(sample_texts(files, text_key="text", fractions=(), budget=budget, progress=False))
    size = sum(len(t.encode()) for t in got)
    assert budget * 0.7 < size < budget + 1000
    assert len({texts.index(t) // 10 for t in got}) > 30
    everything = sample_texts(files, text_key="text", fractions=(), budget=1 << 30, progress=False)
    assert list(everything) == texts


def test_a_batch_is_split_and_tokenized_document_by_document():
    texts = documents(40)
    tokenizer = train_tokenizer(texts, 300)
    task = EncodeTask(tokenizer=tokenizer, text_key="text", fractions=(0.3,), dtype="uint16")
    payloads = [json.dumps({"text": text}).encode() for text in texts]
    got = task(("jsonl", [*payloads[:5], b"broken", *payloads[5:], b'{"text": ""}']))
    assert got.bad == [(5, "invalid JSON"), (41, "empty text")]
    for split in (0, 1):
        group = [text for text in texts if split_of(text, (0.3,)) == split]
        expected = [
            token
            for text in group
            for token in [*tokenizer.tokenizer.encode(text).ids, tokenizer.eos_id]
        ]
        (piece,) = got.pieces[split]
        assert got.documents[split] == len(group) > 0
        assert piece.dtype == "uint16" and piece.tolist() == expected
