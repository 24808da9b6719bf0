"""From raw records to tokens, and the sample of text that a tokenizer is trained on."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np

from attent_stream.corpus.pack import split_of
from attent_stream.corpus.records import BadRecord, parse_record, read_batches
from attent_stream.corpus.sources import COMPRESSED, InputFile
from attent_stream.corpus.tally import progress_bar
from attent_stream.corpus.tokenizer import CorpusTokenizer

# Text per byte on disk, to spread the tokenizer's sample over compressed files and others.
UNFOLDING = 4


@dataclass(frozen=True, kw_only=True)
class Encoded:
    """A tokenised batch: per split the token pieces and number of documents; bad: (index,
    reason).
    """

    pieces: list[list[np.ndarray]]
    documents: list[int]
    bad: list[tuple[int, str]]


@dataclass(frozen=True, kw_only=True)
class EncodeTask:
    """The work on one batch of raw records, in any process: parse, choose the split, tokenise."""

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
        # One array a split travels back much faster than one a document.
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
    """Documents of 'train' to learn a tokenizer from: about `budget` bytes of UTF-8, spread over
    files.

    Every file earns credit by its size and spends it on whole documents from its beginning; what a
    file overspends the next ones lack, so many small files are sampled evenly too.
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
                continue  # counted when the corpus is written
            yield text
