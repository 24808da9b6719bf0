"""A task of conversations, from pretrained weights with LoRA."""

from chat_files import CHATML, chat_tokenizer
from toy_benches import CHAT, write_llama

from attent_stream.bench.command import main
from attent_stream.bench.record import read_records


def test_it_is_trained_from_its_weights(tmp_path, capsys):
    folder = tmp_path / "weights"
    chat_tokenizer(folder, CHATML)
    write_llama(folder, words=302, layers=3)
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
    plain, shorter, default = (one.last for one in records)
    # Few weights are trained, so nothing is dropped, but conversations are grouped by length
    assert default.step == plain.step and default.tokens < plain.tokens
    assert plain.quality != shorter.quality
