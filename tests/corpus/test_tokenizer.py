"""The tokenizer, trained or given."""

import json
import pickle

from corpus_files import documents, write_jsonl
from text_corpora import check_part, settings_for
from transformers import AutoTokenizer

from attent_stream.corpus import write_text_corpus
from attent_stream.corpus.tokenizer import EOS, train_tokenizer


def test_tokenizer_pickles_with_its_ways():
    tokenizer = train_tokenizer(["some text"] * 3, 300)
    again = pickle.loads(pickle.dumps(tokenizer))
    for one in (tokenizer, again):
        (ids,) = one.encode([f"a {EOS} b"], "uint16")
        assert ids[-1] == one.eos_id and one.eos_id not in ids[:-1]
    assert (
        again.encode(["some text"], "uint16")[0] == tokenizer.encode(["some text"], "uint16")[0]
    ).all()


def test_trained_tokenizer_loads_in_transformers_and_is_reproducible(tmp_path):
    path = write_jsonl(tmp_path / "a.jsonl", documents(100))
    one, two = (
        settings_for(tmp_path, f"a={path}"),
        settings_for(tmp_path, f"a={path}", out=str(tmp_path / "2")),
    )
    write_text_corpus(one)
    write_text_corpus(two)
    saved = tmp_path / "out" / "tokenizer"
    assert (saved / "tokenizer.json").read_bytes() == (
        tmp_path / "2/tokenizer/tokenizer.json"
    ).read_bytes()
    tokenizer = AutoTokenizer.from_pretrained(saved)
    assert tokenizer.eos_token == tokenizer.bos_token == tokenizer.pad_token == "<|endoftext|>"
    assert len(tokenizer) == 300 and tokenizer.eos_token_id == 0
    text = "Any text, Ω\x00\t  of any bytes 🙂"
    assert tokenizer.decode(tokenizer(text)["input_ids"]) == text


def test_given_tokenizer_is_used_and_copied(tmp_path):
    path = write_jsonl(tmp_path / "a.jsonl", documents(80))
    write_text_corpus(settings_for(tmp_path, f"a={path}", out=str(tmp_path / "first")))
    given = tmp_path / "first" / "tokenizer"
    for tokenizer in (given, given / "tokenizer.json"):
        out = tmp_path / tokenizer.name
        manifest = write_text_corpus(
            settings_for(
                tmp_path,
                f"a={path}",
                vocab_size=None,
                tokenizer=str(tokenizer),
                out=str(out),
                workers=2,
            )
        )
        check_part(out, manifest, "a", "train", documents(80))
        assert AutoTokenizer.from_pretrained(out / "tokenizer").eos_token == "<|endoftext|>"


def test_ids_from_65536_take_uint32(tmp_path):
    path = write_jsonl(tmp_path / "a.jsonl", documents(80))
    write_text_corpus(settings_for(tmp_path, f"a={path}", out=str(tmp_path / "first")))
    value = json.loads((tmp_path / "first/tokenizer/tokenizer.json").read_text())
    value["added_tokens"].append({**value["added_tokens"][0], "id": 65536, "content": "<|far|>"})
    value["model"]["vocab"]["<|far|>"] = 65536
    value["truncation"] = {
        "direction": "Right",
        "max_length": 3,
        "strategy": "LongestFirst",
        "stride": 0,
    }
    (tmp_path / "wide.json").write_text(json.dumps(value))
    manifest = write_text_corpus(
        settings_for(tmp_path, f"a={path}", vocab_size=None, tokenizer=f"{tmp_path}/wide.json")
    )
    assert (manifest.dtype, manifest.vocab_size) == ("uint32", 65537)
    check_part(tmp_path / "out", manifest, "a", "train", documents(80))
