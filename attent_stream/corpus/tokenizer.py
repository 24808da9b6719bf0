"""Train a tokenizer, or load one from a local folder without running code from it."""

import json
import shutil
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from attent_stream.corpus.errors import CorpusError, require

EOS = "<|endoftext|>"
EOS_NAMES = (EOS, "<|end_of_text|>", "</s>", "<eos>", "[SEP]")
SMALLEST_VOCAB = 257  # Every byte and EOS.
FILES = ("tokenizer_config.json", "special_tokens_map.json", "added_tokens.json")


@dataclass(frozen=True, kw_only=True)
class CorpusTokenizer:
    """A `tokenizers.Tokenizer` for packing, with its end-of-text token.

    Attributes:
        tokenizer: Without truncation and padding. Special tokens in a text are encoded as plain
            text, so that no document can end itself.
        eos_token, eos_id: The token after every document.
        max_id: The largest id; an embedding needs max_id + 1 rows.
        folder: The folder that it was loaded from; None for a file or a trained one.
    """

    tokenizer: Any
    eos_token: str
    eos_id: int
    max_id: int
    folder: Path | None

    def encode(self, texts: list[str], dtype: str) -> list[np.ndarray]:
        """Return the ids of each text and EOS, as 1-D arrays of `dtype`."""
        encodings = self.tokenizer.encode_batch_fast(texts, add_special_tokens=False)
        return [np.array([*encoding.ids, self.eos_id], dtype) for encoding in encodings]

    def __reduce__(self):
        # A pickled Tokenizer loses encode_special_tokens.
        return _from_json, (self.tokenizer.to_str(), self.eos_token, self.folder)

    def save(self, folder: Path) -> None:
        """Write a folder that `AutoTokenizer.from_pretrained` loads."""
        folder.mkdir(parents=True, exist_ok=True)
        if self.folder is None:
            self.tokenizer.save(str(folder / "tokenizer.json"))
            special = dict.fromkeys(("bos_token", "eos_token", "pad_token"), self.eos_token)
            config = {
                "tokenizer_class": "PreTrainedTokenizerFast",
                "clean_up_tokenization_spaces": False,
            }
            _write_json(folder / "tokenizer_config.json", {**config, **special})
            _write_json(folder / "special_tokens_map.json", special)
            return
        for name in ("tokenizer.json", *FILES):
            if (self.folder / name).is_file():
                shutil.copyfile(self.folder / name, folder / name)


def train_tokenizer(
    texts: Iterable[str], vocab_size: int, progress: bool = False
) -> CorpusTokenizer:
    """Train a byte-level BPE tokenizer with GPT-2's pre-tokenization and EOS as special token.

    Args:
        texts: Documents to train on.
        vocab_size: The most tokens, at least 257; little text gives fewer.
        progress: Show the trainer's progress bar.
    """
    from tokenizers import Tokenizer, decoders, models, pre_tokenizers, trainers

    tokenizer = Tokenizer(models.BPE())
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.decoder = decoders.ByteLevel()
    trainer = trainers.BpeTrainer(
        vocab_size=vocab_size,
        special_tokens=[EOS],
        initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),
        show_progress=progress,
    )
    tokenizer.train_from_iterator(texts, trainer)
    return _prepared(tokenizer, EOS, None)


def load_tokenizer(path: str | Path, eos_token: str | None = None) -> CorpusTokenizer:
    """Load a fast tokenizer from a local folder with a tokenizer.json, or from such a file.

    Args:
        path: The folder or file.
        eos_token: The end-of-text token. None: the folder's, else the first of EOS_NAMES in the
            vocabulary.

    Raises:
        CorpusError: The file is missing or no tokenizer, or has no end-of-text token.
    """
    from tokenizers import Tokenizer

    path = Path(path)
    file = path / "tokenizer.json" if path.is_dir() else path
    require(
        path.exists(),
        f"no tokenizer at {path}: give a local folder with a tokenizer.json, or such a file",
    )
    require(
        file.is_file(),
        f"no tokenizer.json in {path}; AutoTokenizer.from_pretrained(...).save_pretrained(folder) "
        "writes one",
    )
    try:
        tokenizer = Tokenizer.from_file(str(file))
    except Exception as error:  # The library raises plain Exception.
        raise CorpusError(f"{file} is not a tokenizer: {error}") from error
    folder = path if path.is_dir() else None
    eos = eos_token or (_named_eos(folder) if folder else None)
    if eos is None:
        eos = next((name for name in EOS_NAMES if tokenizer.token_to_id(name) is not None), None)
    require(eos is not None, f"{path} names no end-of-text token; give one with --eos-token")
    require(
        tokenizer.token_to_id(eos) is not None,
        f"the end-of-text token {eos!r} is not in the tokenizer at {path}",
    )
    return _prepared(tokenizer, eos, folder)


def _prepared(tokenizer: Any, eos_token: str, folder: Path | None) -> CorpusTokenizer:
    tokenizer.no_truncation()
    tokenizer.no_padding()
    tokenizer.encode_special_tokens = True
    return CorpusTokenizer(
        tokenizer=tokenizer,
        eos_token=eos_token,
        eos_id=tokenizer.token_to_id(eos_token),
        max_id=max(tokenizer.get_vocab(with_added_tokens=True).values()),
        folder=folder,
    )


def _from_json(text: str, eos_token: str, folder: Path | None) -> CorpusTokenizer:
    from tokenizers import Tokenizer

    return _prepared(Tokenizer.from_str(text), eos_token, folder)


def _named_eos(folder: Path) -> str | None:
    for name in ("tokenizer_config.json", "special_tokens_map.json"):
        file = folder / name
        if not file.is_file():
            continue
        try:
            config = json.loads(file.read_text("utf-8"))
        except ValueError as error:
            raise CorpusError(f"{file} is not JSON: {error}") from error
        eos = config.get("eos_token") if isinstance(config, dict) else None
        eos = eos.get("content") if isinstance(eos, dict) else eos
        if isinstance(eos, str):
            return eos
    return None


def _write_json(path: Path, value: Any) -> None:
    path.write_text(json.dumps(value, indent=2) + "\n", "utf-8")
