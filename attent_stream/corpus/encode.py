"""Tokenize raw records, and sample the text that a tokenizer is trained on."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np

from attent_stream.corpus.pack import split_of
from attent_stream.corpus.records import BadRecord, parse_record, read_batches
from attent_stream.corpus.sources import COMPRESSED, InputFile
from attent_stream.corpus.tally import progress_bar
from attent_stream.corpus.tokenizer import CorpusTokenizer

# Bytes of text in a byte of a compressed file, roughly.
UNFOLDING = 4


@dataclass(frozen=True, kw_only=True)
class Encoded:
    """A batch's tokens and number of documents for each split, and its bad (index, reason)."""

    pieces: list[list[np.ndarray]]
    documents: list[int]
    bad: list[tuple[int, str]]


@dataclass(frozen=True, kw_only=True)
class EncodeTask:
    """Parse, split and tokenize a batch of raw records, in any process."""

    tokenizer: CorpusTokenizer
    text_key: str
    fractions: tuple[float, ...]
    dtype: str

    def __call__(self, work: tuple[str, list[bytes | None]]) -> Encoded:
        kind, payloads = work
        texts, splits, bad = [], [], []
        for index, payload in enumerate(payloads):
            try:
                text = parse_record(kind, payload, self.text_key)
            except BadRecord as error:
                bad.append((index, str(error)))
                continue
            texts.append(text)
            splits.append(split_of(text, self.fractions))
        grouped: list[list[np.ndarray]] = [[] for _ in range(len(self.fractions) + 1)]
        for split, tokens in zip(splits, self.tokenizer.encode(texts, self.dtype), strict=True):
            grouped[split].append(tokens)
        documents = [len(group) for group in grouped]
        # One array for each split is sent back much faster than one for each document.
        return Encoded(
            pieces=[[np.concatenate(g)] if g else [] for g in grouped], documents=documents, bad=bad
        )


def sample_texts(
    files: Sequence[InputFile],
    *,
    text_key: str,
    fractions: Sequence[float],
    budget: int,
    progress: bool | None,
) -> Iterator[str]:
    """Yield documents of 'train', about `budget` bytes of UTF-8, spread over the files.

    A file earns credit by its size and spends it on whole documents from its beginning. The next
    files pay for an overdraft, so many small files are sampled evenly too.
    """
    sizes = [
        file.size * (UNFOLDING if file.path.endswith((*COMPRESSED, ".parquet")) else 1)
        for file in files
    ]
    share = min(1.0, budget / max(1, sum(sizes)))
    credit, spent = 0.0, 0
    with progress_bar(min(budget, sum(sizes)), "reading text for the tokenizer", progress) as bar:
        for file, size in zip(files, sizes, strict=True):
            credit = credit + size * share if share < 1 else float("inf")
            for text in _texts(file, text_key) if credit > 0 else ():
                if split_of(text, fractions) < len(fractions):
                    continue
                length = len(text.encode("utf-8"))
                credit, spent = credit - length, spent + length
                bar.update(length)
                yield text
                if spent >= budget:
                    return
                if credit <= 0:
                    break


def _texts(file: InputFile, text_key: str) -> Iterator[str]:
    for batch in read_batches([file], text_key):
        for payload in batch.payloads:
            try:
                text = parse_record(batch.kind, payload, text_key)
            except BadRecord:
                continue  # It is counted when the corpus is written.
            yield text
