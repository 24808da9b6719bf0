"""Write documents as packed samples of tokens in MDS shards, a folder for each stream and split."""

from collections.abc import Callable, Sequence
from itertools import chain

import numpy as np
from tqdm import tqdm

from attent_stream.corpus.encode import Encoded, EncodeTask, sample_texts
from attent_stream.corpus.errors import require
from attent_stream.corpus.manifest import Manifest, Part
from attent_stream.corpus.output import LocalOutput, RemoteOutput, ShardWriter, open_output
from attent_stream.corpus.pack import cut, token_dtype
from attent_stream.corpus.parallel import ordered_map
from attent_stream.corpus.records import Batch, read_batches
from attent_stream.corpus.settings import TextCorpusSettings, mds_settings, parse_bytes
from attent_stream.corpus.sources import InputFile, find_files, normal_extensions
from attent_stream.corpus.tally import Tally, progress_bar
from attent_stream.corpus.tokenizer import CorpusTokenizer, load_tokenizer, train_tokenizer

TOKENIZER_FOLDER = "tokenizer"


class PartWriter:
    """Pack the tokens of a split of a stream, carrying the remainder over."""

    def __init__(
        self,
        output: LocalOutput | RemoteOutput,
        settings: TextCorpusSettings,
        stream: str,
        split: str,
        dtype: str,
    ) -> None:
        self.output, self.settings = output, settings
        self.stream, self.split, self.dtype = stream, split, dtype
        self.path = f"{stream}/{split}"
        self.carry = np.empty(0, dtype)
        self.shards: ShardWriter | None = None
        self.documents = self.tokens = self.samples = 0

    def add(self, pieces: list[np.ndarray], documents: int) -> None:
        """Add the tokens of some documents, in order."""
        self.documents += documents
        self.tokens += sum(map(len, pieces))
        samples, self.carry = cut([self.carry, *pieces], self.settings.seq_len)
        if len(samples) and self.shards is None:
            s = self.settings
            columns = {"tokens": f"ndarray:{self.dtype}:{s.seq_len}"}
            mds = mds_settings(s.shard_size, s.compression, s.hashes)
            self.shards = ShardWriter(self.output, self.path, columns, **mds)
        for sample in samples:
            self.shards.write({"tokens": sample})
        self.samples += len(samples)

    def finish(self) -> Part:
        """Close the shards and drop the remaining tokens."""
        if self.shards is not None:
            self.shards.finish()
        return Part(
            stream=self.stream,
            split=self.split,
            path=self.path,
            documents=self.documents,
            samples=self.samples,
            tokens=self.tokens,
            dropped_tokens=len(self.carry),
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
        total = sum(file.size for group in files.values() for file in group)
        parts, bad = [], []
        with (
            ordered_map(task, settings.workers) as run,
            progress_bar(total, "writing", settings.progress) as bar,
        ):
            for stream, group in files.items():
                tally = Tally(stream)
                parts += _write_stream(output, settings, tally, run, group, task.dtype, bar)
                bad += tally.records()
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


def _write_stream(
    output: LocalOutput | RemoteOutput,
    settings: TextCorpusSettings,
    tally: Tally,
    run: Callable,
    files: Sequence[InputFile],
    dtype: str,
    bar: tqdm,
) -> list[Part]:
    parts = [
        PartWriter(output, settings, tally.stream, split, dtype) for split in settings.split_names
    ]
    batches = read_batches(files, settings.text_key)
    for batch, encoded in run(batches, _work):
        _count_bad(tally, batch, encoded)
        for part, pieces, documents in zip(parts, encoded.pieces, encoded.documents, strict=True):
            part.add(pieces, documents)
            tally.good += documents
        bar.update(batch.read)
    tally.check()
    return [part.finish() for part in (parts[-1], *parts[:-1])]


def _work(batch: Batch) -> tuple[str, list[bytes | None]]:
    return batch.kind, batch.payloads


def _count_bad(tally: Tally, batch: Batch, encoded: Encoded) -> None:
    for reason, location, count in batch.bad:
        tally.add_bad(reason, location, count)
    for index, reason in encoded.bad:
        tally.add_bad(reason, batch.locations[index])


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
