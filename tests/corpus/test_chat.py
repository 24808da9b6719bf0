"""The corpus of conversations: what Streaming reads back is what went in."""

import json

import numpy as np
import pytest
from chat_files import CHATML, chat_tokenizer
from streaming import StreamingDataset

from attent_stream.cli import main
from attent_stream.corpus import (
    ChatCorpusSettings,
    CorpusError,
    Manifest,
    sources_from,
    write_chat_corpus,
)
from attent_stream.corpus.conversation import IGNORED, ChatFormat, load_chat_tokenizer, messages_of


@pytest.fixture(scope="module")
def tokenizer(tmp_path_factory):
    return chat_tokenizer(tmp_path_factory.mktemp("tokenizer"), CHATML)


def records(count: int) -> list[dict]:
    return [
        {"prompt": f"what is {n} and {n}", "answer": f"{n} and {n} is {2 * n}"}
        for n in range(count)
    ]


def written(path, values) -> str:
    path.write_text("".join(json.dumps(value) + "\n" for value in values))
    return str(path)


def settings_for(tmp_path, source, tokenizer, **given) -> ChatCorpusSettings:
    return ChatCorpusSettings(
        sources=sources_from([source]),
        out=str(tmp_path / "out"),
        tokenizer=tokenizer,
        **{"seq_len": 64, **given},
    )


@pytest.mark.parametrize("workers", [1, 2])
def test_round_trip_with_splits(tmp_path, tokenizer, workers):
    values = records(200)
    source = written(tmp_path / "sums.jsonl", values)
    given = settings_for(tmp_path, source, tokenizer, splits=(("valid", 0.2),), workers=workers)
    manifest = write_chat_corpus(given)
    assert manifest == Manifest.load(tmp_path / "out") and manifest.kind == "chat"
    assert [part.path for part in manifest.parts] == ["sums/train", "sums/valid"]
    assert manifest.total("samples") == 200 and manifest.total("samples", "valid") > 20
    form = ChatFormat(load_chat_tokenizer(str(tmp_path / "out" / "tokenizer")))
    lines = [json.dumps(value).encode() for value in values]
    expected = form.encode([form.written(messages_of(line)) for line in lines], 64)
    found = []
    for part in manifest.parts:
        read = StreamingDataset(local=str(tmp_path / "out" / part.path), batch_size=1)
        found += [(one["input_ids"].tolist(), one["labels"].tolist()) for one in read]
    assert sorted(found) == sorted((one.ids.tolist(), one.labels.tolist()) for one in expected)
    assert manifest.total("tokens") == sum(len(one.ids) for one in expected)


def test_what_cannot_be_used_is_left_out_and_told(tmp_path, tokenizer, capsys):
    long = {"prompt": "why " * 100, "answer": "because"}
    source = written(tmp_path / "a.jsonl", [*records(10), {"text": "no"}, long, 3])
    arguments = ["corpus", "chat", source, "--tokenizer", tokenizer, "--seq-len", "48"]
    assert main([*arguments, "--out", str(tmp_path / "out"), "--workers", "1"]) == 0
    said = capsys.readouterr()
    assert "a/train" in said.out and "complete" in said.out
    for reason in (
        "1 x neither 'messages' nor 'prompt' and 'answer', e.g. " + source + ":11",
        "1 x no answer within 48 tokens, e.g. " + source + ":12",
        "1 x no JSON object, e.g. " + source + ":13",
    ):
        assert f"left out of a: {reason}" in said.err
    read = StreamingDataset(local=str(tmp_path / "out/a/train"), batch_size=1)
    assert len(read) == 10 and all((one["labels"] != IGNORED).any() for one in read)
    assert read[0]["input_ids"].dtype == np.uint16 and read[0]["labels"].dtype == np.int32


@pytest.mark.parametrize(
    ("given", "reason"),
    [
        ({"seq_len": 1}, "seq_len must be a whole number from 2"),
        ({"tokenizer": ""}, "tokenizer must be a folder"),
        ({"tokenizer": "nowhere"}, "no tokenizer at nowhere"),
        ({"splits": (("train", 0.1),)}, "a split's name is"),
        ({"shard_size": "4kb"}, "shard_size must hold a sample of 64 tokens"),
    ],
)
def test_wrong_settings_are_refused(tmp_path, tokenizer, given, reason):
    source = written(tmp_path / "a.jsonl", records(5))
    with pytest.raises(CorpusError, match=reason):
        write_chat_corpus(settings_for(tmp_path, source, **{"tokenizer": tokenizer, **given}))
    assert not (tmp_path / "out").exists()


def test_other_files_are_refused(tmp_path, tokenizer):
    (tmp_path / "a.txt").write_text("a")
    with pytest.raises(CorpusError, match=r"a.txt is no .jsonl: conversations are JSON lines"):
        write_chat_corpus(settings_for(tmp_path, str(tmp_path / "a.txt"), tokenizer))
