"""Write conversations as samples with labels in MDS shards, a folder for each stream and split."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

from tqdm import tqdm

from attent_stream.corpus.conversation import (
    IGNORED,
    ChatFormat,
    Conversation,
    load_chat_tokenizer,
    messages_of,
)
from attent_stream.corpus.errors import require
from attent_stream.corpus.manifest import Manifest, Part
from attent_stream.corpus.output import LocalOutput, RemoteOutput, ShardWriter, open_output
from attent_stream.corpus.pack import split_of, token_dtype
from attent_stream.corpus.parallel import ordered_map
from attent_stream.corpus.records import BadRecord, Batch, read_batches
from attent_stream.corpus.settings import ChatCorpusSettings, mds_settings
from attent_stream.corpus.sources import InputFile, find_files
from attent_stream.corpus.tally import Tally, progress_bar
from attent_stream.corpus.text import TOKENIZER_FOLDER

IDS, LABELS = "input_ids", "labels"


@dataclass(frozen=True, kw_only=True)
class ChatTask:
    """Parse and tokenize a batch of raw records, in any process."""

    format: ChatFormat
    fractions: tuple[float, ...]
    seq_len: int

    def __call__(
        self, payloads: list[bytes | None]
    ) -> tuple[list[tuple[int, Conversation]], list[tuple[int, str]]]:
        """Return (split, conversation) of the good records, and (index, reason) of the others."""
        written, places, bad = [], [], []
        for index, payload in enumerate(payloads):
            try:
                written.append(self.format.written(messages_of(payload)))
                places.append(index)
            except BadRecord as error:
                bad.append((index, str(error)))
        good = []
        for index, (text, _), made in zip(
            places, written, self.format.encode(written, self.seq_len), strict=True
        ):
            # The first token is not predicted.
            if (made.labels[1:] == IGNORED).all():
                bad.append((index, f"no answer within {self.seq_len} tokens"))
            else:
                good.append((split_of(text, self.fractions), made))
        return good, sorted(bad)


class ChatPart:
    """Writes a split of a stream."""

    def __init__(
        self,
        output: LocalOutput | RemoteOutput,
        settings: ChatCorpusSettings,
        stream: str,
        split: str,
        dtype: str,
    ) -> None:
        self._output, self._settings, self._dtype = output, settings, dtype
        self._stream, self._split, self._path = stream, split, f"{stream}/{split}"
        self._shards: ShardWriter | None = None
        self._samples = self._tokens = self._cut = 0

    def add(self, made: Conversation) -> None:
        """Write a conversation."""
        if self._shards is None:
            s = self._settings
            columns = {IDS: f"ndarray:{self._dtype}", LABELS: "ndarray:int32"}
            mds = mds_settings(s.shard_size, s.compression, s.hashes)
            self._shards = ShardWriter(self._output, self._path, columns, **mds)
        self._shards.write({IDS: made.ids.astype(self._dtype), LABELS: made.labels})
        self._samples += 1
        self._tokens += len(made.ids) + made.cut
        self._cut += made.cut

    def finish(self) -> Part:
        """Close the shards."""
        if self._shards is not None:
            self._shards.finish()
        return Part(
            stream=self._stream,
            split=self._split,
            path=self._path,
            documents=self._samples,
            samples=self._samples,
            tokens=self._tokens,
            dropped_tokens=self._cut,
        )


def write_chat_corpus(settings: ChatCorpusSettings) -> Manifest:
    """Write a corpus of conversations and return its manifest.

    Layout: `out`/STREAM/SPLIT/{shard.*.mds, index.json}, `out`/tokenizer, `out`/manifest.json.
    Columns: `input_ids` (uint16, or uint32 for ids from 65,536, of any length up to `seq_len`) and
    `labels` (int32 of the same length, -100 where the assistant does not speak). llm-foundry's
    finetuning loader reads these too.

    Raises:
        CorpusError: The settings or the data have a mistake; no corpus is left behind.
    """
    files = {source.name: find_files(source) for source in settings.sources}
    for file in (one for group in files.values() for one in group):
        require(file.kind == "jsonl", f"{file.path} is no .jsonl: conversations are JSON lines")
    with open_output(settings.out, settings.overwrite) as output:
        tokenizer = load_chat_tokenizer(settings.tokenizer)
        tokenizer.save_pretrained(output.folder / TOKENIZER_FOLDER)
        largest = max(tokenizer.get_vocab().values())
        task = ChatTask(
            format=ChatFormat(tokenizer),
            fractions=tuple(fraction for _, fraction in settings.splits),
            seq_len=settings.seq_len,
        )
        total = sum(file.size for group in files.values() for file in group)
        parts, bad = [], []
        with (
            ordered_map(task, settings.workers) as run,
            progress_bar(total, "writing", settings.progress) as bar,
        ):
            for stream, group in files.items():
                tally = Tally(stream)
                parts += _write_stream(
                    output, settings, tally, run, group, token_dtype(largest), bar
                )
                bad += tally.records()
        manifest = Manifest(
            kind="chat",
            parts=tuple(parts),
            bad=tuple(bad),
            tokenizer=TOKENIZER_FOLDER,
            vocab_size=largest + 1,
            eos_id=tokenizer.eos_token_id,
            seq_len=settings.seq_len,
            dtype=token_dtype(largest),
            settings=settings.recorded(),
        )
        for split in manifest.splits:
            require(
                manifest.total("samples", split) > 0,
                f"split {split!r} has no conversation; give more, or a larger fraction",
            )
        output.publish(manifest)
    return manifest


def _write_stream(
    output: LocalOutput | RemoteOutput,
    settings: ChatCorpusSettings,
    tally: Tally,
    run: Callable,
    files: Sequence[InputFile],
    dtype: str,
    bar: tqdm,
) -> list[Part]:
    parts = [
        ChatPart(output, settings, tally.stream, split, dtype) for split in settings.split_names
    ]
    for batch, (good, bad) in run(read_batches(files, ""), _payloads):
        for reason, location, count in batch.bad:
            tally.add_bad(reason, location, count)
        for index, reason in bad:
            tally.add_bad(reason, batch.locations[index])
        for split, made in good:
            parts[split].add(made)
        tally.good += len(good)
        bar.update(batch.read)
    tally.check()
    return [part.finish() for part in (parts[-1], *parts[:-1])]


def _payloads(batch: Batch) -> list[Any]:
    return batch.payloads
