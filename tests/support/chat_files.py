"""A small tokenizer with a chat template."""

import json
from pathlib import Path

from corpus_files import documents

from attent_stream.corpus.tokenizer import train_tokenizer

CHATML = (
    "{% for m in messages %}{{ '<|im_start|>' + m['role'] + '\n' + m['content'] + '<|im_end|>\n' }}"
    "{% endfor %}{% if add_generation_prompt %}{{ '<|im_start|>assistant\n' }}{% endif %}"
)


def chat_tokenizer(folder: Path, template: str | None) -> str:
    """Write one that Hugging Face's AutoTokenizer reads, and return its folder."""
    made = train_tokenizer(documents(50), 300)
    made.tokenizer.add_special_tokens(["<|im_start|>", "<|im_end|>"])
    made.save(folder)
    path = folder / "tokenizer_config.json"
    config = json.loads(path.read_text())
    if template is not None:
        config |= {"chat_template": template}
        config["additional_special_tokens"] = ["<|im_start|>", "<|im_end|>"]
    path.write_text(json.dumps(config))
    return str(folder)
