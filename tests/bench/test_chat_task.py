"""A task of conversations, from pretrained weights with LoRA."""

from bench_files import CHAT
from chat_files import CHATML, chat_tokenizer
from transformers import LlamaConfig, LlamaForCausalLM

from attent_stream.bench.command import main
from attent_stream.bench.record import read_records


def test_it_is_trained_from_its_weights(tmp_path, capsys):
    folder = tmp_path / "weights"
    chat_tokenizer(folder, CHATML)
    small = {"hidden_size": 16, "intermediate_size": 32, "num_attention_heads": 2}
    LlamaForCausalLM(LlamaConfig(vocab_size=302, num_hidden_layers=3, **small)).save_pretrained(
        folder
    )
    path = tmp_path / "chat.yaml"
    path.write_text(CHAT.replace("WEIGHTS", str(folder)))
    assert main([str(path), "--out", str(tmp_path / "out")]) == 0
    said = capsys.readouterr().out
    assert "24 samples per epoch from made-up sums" in said
    records = read_records(tmp_path / "out" / "chat" / "runs.jsonl")
    assert [(one.arm, one.length) for one in records] == [
        ("plain", 1.0),
        ("plain", 0.5),
        ("default", 1.0),
    ]
    assert {label for one in records for label in one.last.measures} == {"sums"}
    assert all(0 < one.last.quality < 10 and one.last.tokens > 0 for one in records)
    assert len({one.last.quality for one in records}) == 3
