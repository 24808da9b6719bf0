"""Write conversations as samples with labels in MDS shards, a folder for each stream and split."""

from collections.abc import Sequence
from dataclasses import dataclass
from functools import partial

from attent_stream.corpus.conversation import (
    IGNORED,
    ChatFormat,
    Conversation,
    load_chat_tokenizer,
    messages_of,
)
from attent_stream.corpus.errors import require
from attent_stream.corpus.manifest import Manifest, Part
from attent_stream.corpus.output import LocalOutput, RemoteOutput, open_output
from attent_stream.corpus.pack import split_of, token_dtype
from attent_stream.corpus.records import BadRecord
from attent_stream.corpus.settings import ChatCorpusSettings
from attent_stream.corpus.sources import find_files
from attent_stream.corpus.streams import TOKENIZER_FOLDER, SplitShards, write_streams

IDS, LABELS = "input_ids", "labels"


@dataclass(frozen=True, kw_only=True)
class Chats:
    """A batch's conversations, each with the number of its split, and its bad (index, reason)."""

    good: list[tuple[int, Conversation]]
    bad: list[tuple[int, str]]


@dataclass(frozen=True, kw_only=True)
class ChatTask:
    """Parse and tokenize a batch of raw records, in any process."""

    format: ChatFormat
    fractions: tuple[float, ...]
    seq_len: int

    def __call__(self, work: tuple[str, list[bytes | None]]) -> Chats:
        _, payloads = work
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
        return Chats(good=good, bad=sorted(bad))


class ChatSplit:
    """Writes a split of a stream."""

    def __init__(
        self,
        output: LocalOutput | RemoteOutput,
        settings: ChatCorpusSettings,
        dtype: str,
        stream: str,
        split: str,
    ) -> None:
        columns = {IDS: f"ndarray:{dtype}", LABELS: "ndarray:int32"}
        self._shards = SplitShards(output, settings, stream, split, columns)
        self._dtype = dtype
        self._tokens = self._cut = 0

    def add(self, made: Conversation) -> None:
        """Write a conversation."""
        self._shards.write({IDS: made.ids.astype(self._dtype), LABELS: made.labels})
        self._tokens += len(made.ids) + made.cut
        self._cut += made.cut

    def finish(self) -> Part:
        """Close the shards."""
        return self._shards.finish(
            documents=self._shards.samples, tokens=self._tokens, dropped=self._cut
        )


def write_chat_corpus(settings: ChatCorpusSettings) -> Manifest:
    """Write a corpus of conversations and return its manifest.

    Layout: `out`/STREAM/SPLIT/{shard.*.mds, index.json}, `out`/tokenizer, `out`/manifest.json.
    Columns: `input_ids` (uint16, or uint32 for ids from 65,536, of any length up to `seq_len`) and
    `labels` (int32 of the same length, -100 where the assistant does not speak). The loaders
    `chat` and, in llm-foundry, `attent_finetuning` read them.

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
        parts, bad = write_streams(
            settings,
            files,
            task,
            text_key="",
            open_split=partial(ChatSplit, output, settings, token_dtype(largest)),
            add=_add,
        )
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


def _add(splits: Sequence[ChatSplit], made: Chats) -> int:
    for split, conversation in made.good:
        splits[split].add(conversation)
    return len(made.good)
