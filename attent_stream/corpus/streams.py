"""Write the documents of streams into splits, and count what is left out."""

from collections.abc import Callable, Mapping, Sequence
from typing import Any, Protocol, TypeVar

from attent_stream.corpus.manifest import BadRecords, Part
from attent_stream.corpus.output import LocalOutput, RemoteOutput, ShardWriter
from attent_stream.corpus.parallel import ordered_map
from attent_stream.corpus.records import Batch, read_batches
from attent_stream.corpus.settings import StreamCorpusSettings, mds_settings
from attent_stream.corpus.sources import InputFile
from attent_stream.corpus.tally import Tally, progress_bar

TOKENIZER_FOLDER = "tokenizer"


class SplitShards:
    """The shards of a split of a stream, begun with its first sample.

    Attributes:
        samples: Samples that were written.
    """

    def __init__(
        self,
        output: LocalOutput | RemoteOutput,
        settings: StreamCorpusSettings,
        stream: str,
        split: str,
        columns: dict[str, str],
    ) -> None:
        self.samples = 0
        self._output, self._settings, self._columns = output, settings, columns
        self._stream, self._split, self._path = stream, split, f"{stream}/{split}"
        self._shards: ShardWriter | None = None

    def write(self, sample: dict[str, Any]) -> None:
        """Write one sample."""
        if self._shards is None:
            s = self._settings
            mds = mds_settings(s.shard_size, s.compression, s.hashes)
            self._shards = ShardWriter(self._output, self._path, self._columns, **mds)
        self._shards.write(sample)
        self.samples += 1

    def finish(self, *, documents: int, tokens: int, dropped: int) -> Part:
        """Close the shards, and tell what they hold; see ``Part``."""
        if self._shards is not None:
            self._shards.finish()
        return Part(
            stream=self._stream,
            split=self._split,
            path=self._path,
            documents=documents,
            samples=self.samples,
            tokens=tokens,
            dropped_tokens=dropped,
        )


class Splits(Protocol):
    """A writer of a split."""

    def finish(self) -> Part:
        """Write what is left, and tell what the split holds."""


class Made(Protocol):
    """What a task makes of a batch of records."""

    @property
    def bad(self) -> list[tuple[int, str]]:
        """Index and reason of each record that is left out."""


Writer = TypeVar("Writer", bound=Splits)
Result = TypeVar("Result", bound=Made)


def write_streams(
    settings: StreamCorpusSettings,
    files: Mapping[str, Sequence[InputFile]],
    task: Callable[[tuple[str, list[bytes | None]]], Result],
    *,
    text_key: str,
    open_split: Callable[[str, str], Writer],
    add: Callable[[Sequence[Writer], Result], int],
) -> tuple[list[Part], list[BadRecords]]:
    """Read all streams, and write what a task makes of their records.

    Args:
        settings: The corpus's.
        files: The files of each stream by its name.
        task: Makes samples of a batch's kind and records, in any process.
        text_key: Column of parquet files.
        open_split: Opens the writer of a stream and a split.
        add: Writes a result to the writers, in the order of ``split_names``, and returns how many
            records it holds.

    Returns:
        The parts of each stream, 'train' first, and the records that were left out.

    Raises:
        CorpusError: More than half of a stream's records are bad, or it has none.
    """
    total = sum(file.size for group in files.values() for file in group)
    parts: list[Part] = []
    bad: list[BadRecords] = []
    with (
        ordered_map(task, settings.workers) as run,
        progress_bar(total, "writing", settings.progress) as bar,
    ):
        for stream, group in files.items():
            tally = Tally(stream)
            writers = [open_split(stream, split) for split in settings.split_names]
            for batch, made in run(read_batches(group, text_key), _work):
                _count_bad(tally, batch, made)
                tally.good += add(writers, made)
                bar.update(batch.read)
            tally.check()
            parts += [writer.finish() for writer in (writers[-1], *writers[:-1])]
            bad += tally.records()
    return parts, bad


def _work(batch: Batch) -> tuple[str, list[bytes | None]]:
    return batch.kind, batch.payloads


def _count_bad(tally: Tally, batch: Batch, made: Made) -> None:
    for reason, location, count in batch.bad:
        tally.add_bad(reason, location, count)
    for index, reason in made.bad:
        tally.add_bad(reason, batch.locations[index])
