"""Write documents as packed samples of tokens in MDS shards, a folder for each stream and split."""

from collections.abc import Sequence
from functools import partial
from itertools import chain

import numpy as np

from attent_stream.corpus.encode import Encoded, EncodeTask, sample_texts
from attent_stream.corpus.errors import require
from attent_stream.corpus.manifest import Manifest, Part
from attent_stream.corpus.output import LocalOutput, RemoteOutput, open_output
from attent_stream.corpus.pack import cut, token_dtype
from attent_stream.corpus.settings import TextCorpusSettings, parse_bytes
from attent_stream.corpus.sources import InputFile, find_files, normal_extensions
from attent_stream.corpus.streams import TOKENIZER_FOLDER, SplitShards, write_streams
from attent_stream.corpus.tokenizer import CorpusTokenizer, load_tokenizer, train_tokenizer


class PackedSplit:
    """Pack the tokens of a split of a stream, carrying the remainder over."""

    def __init__(
        self,
        output: LocalOutput | RemoteOutput,
        settings: TextCorpusSettings,
        dtype: str,
        stream: str,
        split: str,
    ) -> None:
        columns = {"tokens": f"ndarray:{dtype}:{settings.seq_len}"}
        self._shards = SplitShards(output, settings, stream, split, columns)
        self._seq_len = settings.seq_len
        self._carry = np.empty(0, dtype)
        self._documents = self._tokens = 0

    def add(self, pieces: list[np.ndarray], documents: int) -> None:
        """Add the tokens of some documents, in order."""
        self._documents += documents
        self._tokens += sum(map(len, pieces))
        samples, self._carry = cut([self._carry, *pieces], self._seq_len)
        for sample in samples:
            self._shards.write({"tokens": sample})

    def finish(self) -> Part:
        """Close the shards and drop the remaining tokens."""
        return self._shards.finish(
            documents=self._documents, tokens=self._tokens, dropped=len(self._carry)
        )


def write_text_corpus(settings: TextCorpusSettings) -> Manifest:
    """Write a text corpus and return its manifest.

    Layout: `out`/STREAM/SPLIT/{shard.*.mds, index.json}, `out`/tokenizer, `out`/manifest.json.
    Column `tokens` holds `seq_len` ids (uint16, or uint32 for ids from 65,536). The samples of a
    stream and split concatenate its documents in order, each with an end-of-text token. Tokens
    that do not fill the last sample are dropped.

    Raises:
        CorpusError: The settings or the data have a mistake; no corpus is left behind.
    """
    files = {
        s.name: find_files(s, normal_extensions(settings.extensions)) for s in settings.sources
    }
    with open_output(settings.out, settings.overwrite) as output:
        tokenizer = _tokenizer(settings, list(chain.from_iterable(files.values())))
        tokenizer.save(output.folder / TOKENIZER_FOLDER)
        task = EncodeTask(
            tokenizer=tokenizer,
            text_key=settings.text_key,
            fractions=tuple(fraction for _, fraction in settings.splits),
            dtype=token_dtype(tokenizer.max_id),
        )
        parts, bad = write_streams(
            settings,
            files,
            task,
            text_key=settings.text_key,
            open_split=partial(PackedSplit, output, settings, task.dtype),
            add=_add,
        )
        manifest = Manifest(
            kind="text",
            parts=tuple(parts),
            bad=tuple(bad),
            tokenizer=TOKENIZER_FOLDER,
            vocab_size=tokenizer.max_id + 1,
            eos_id=tokenizer.eos_id,
            seq_len=settings.seq_len,
            dtype=task.dtype,
            settings=settings.recorded(),
        )
        _check_samples(manifest)
        output.publish(manifest)
    return manifest


def _add(splits: Sequence[PackedSplit], encoded: Encoded) -> int:
    for split, pieces, documents in zip(splits, encoded.pieces, encoded.documents, strict=True):
        split.add(pieces, documents)
    return sum(encoded.documents)


def _check_samples(manifest: Manifest) -> None:
    for split in manifest.splits:
        tokens = manifest.total("tokens", split)
        require(
            manifest.total("samples", split) > 0,
            f"split {split!r} has {tokens} tokens, and no stream fills one sample of "
            f"{manifest.seq_len}; give more text, a smaller seq_len or a larger fraction",
        )


def _tokenizer(settings: TextCorpusSettings, files: Sequence[InputFile]) -> CorpusTokenizer:
    if settings.tokenizer is not None:
        return load_tokenizer(settings.tokenizer, settings.eos_token)
    sample = sample_texts(
        files,
        text_key=settings.text_key,
        fractions=tuple(fraction for _, fraction in settings.splits),
        budget=parse_bytes(settings.tokenizer_sample, "tokenizer_sample"),
        progress=settings.progress,
    )
    tokenizer = train_tokenizer(sample, settings.vocab_size)
    require(
        settings.eos_token in (None, tokenizer.eos_token),
        f"eos_token: expected {tokenizer.eos_token} for a trained tokenizer, got "
        f"{settings.eos_token!r}",
    )
    return tokenizer
