"""Conversations as tokens, with labels on what the assistant says."""

import json
import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from attent_stream.corpus.errors import CorpusError, require
from attent_stream.corpus.records import BadRecord

IGNORED = -100  # label without a loss
MESSAGES, PROMPT = "messages", "prompt"
ANSWERS = ("answer", "response", "completion")
ROLES = ("system", "user", "assistant")
ASSISTANT = "assistant"


@dataclass(frozen=True, kw_only=True)
class Conversation:
    """A sample's tokens.

    Attributes:
        ids: Integers of shape (T,).
        labels: int32 of the same shape: the id where the assistant speaks, -100 elsewhere.
        cut: Tokens that were left out at the end.
    """

    ids: np.ndarray
    labels: np.ndarray
    cut: int


def messages_of(payload: bytes | None) -> list[dict[str, str]]:
    """Return the messages of a JSON line.

    Either its ``messages`` is a list of ``{role, content}``, or it has a ``prompt`` and an
    ``answer`` (or ``response``, or ``completion``).

    Raises:
        BadRecord: It has no such messages, or the assistant says nothing.
    """
    try:
        record = json.loads((payload or b"").decode("utf-8-sig"))
    except UnicodeDecodeError:
        raise BadRecord("invalid UTF-8") from None
    except (ValueError, RecursionError):
        raise BadRecord("invalid JSON") from None
    if not isinstance(record, dict):
        raise BadRecord("no JSON object")
    if MESSAGES in record:
        messages = _checked(record[MESSAGES])
    else:
        answer = next((name for name in ANSWERS if name in record), None)
        if PROMPT not in record or answer is None:
            raise BadRecord(f"neither {MESSAGES!r} nor {PROMPT!r} and {ANSWERS[0]!r}")
        given = (("user", record[PROMPT]), (ASSISTANT, record[answer]))
        messages = _checked([{"role": role, "content": text} for role, text in given])
    if not any(one["role"] == ASSISTANT and one["content"].strip() for one in messages):
        raise BadRecord("the assistant says nothing")
    return messages


def _checked(messages: Any) -> list[dict[str, str]]:
    if not isinstance(messages, list) or not messages:
        raise BadRecord(f"{MESSAGES!r} is no list of messages")
    found = []
    for one in messages:
        if not isinstance(one, Mapping) or not isinstance(one.get("content"), str):
            raise BadRecord("a message without text")
        if one.get("role") not in ROLES:
            raise BadRecord(f"a role that is none of {', '.join(ROLES)}")
        try:
            one["content"].encode("utf-8")
        except UnicodeEncodeError:  # No tokenizer takes half a surrogate pair.
            raise BadRecord("invalid UTF-8") from None
        found.append({"role": one["role"], "content": one["content"]})
    return found


class ChatFormat:
    """Writes conversations as a tokenizer's chat template says, and marks the assistant's part.

    Without a template, a prompt and its answer are two lines, with the end-of-text token last.

    Args:
        tokenizer: A fast tokenizer of transformers.

    Raises:
        CorpusError: The tokenizer does not tell where tokens come from, or has no end of text.
    """

    def __init__(self, tokenizer: Any) -> None:
        require(
            bool(tokenizer.is_fast),
            f"chat needs a fast tokenizer (tokenizer.json), got {type(tokenizer).__name__}",
        )
        require(
            tokenizer.chat_template is not None or tokenizer.eos_token is not None,
            "a tokenizer without a chat template needs an end-of-text token: set eos_token in "
            "tokenizer_config.json",
        )
        self._tokenizer = tokenizer
        self._special = [token for token in tokenizer.all_special_tokens if token]

    def written(self, messages: Sequence[Mapping[str, str]]) -> tuple[str, list[tuple[int, int]]]:
        """A conversation as text, and the spans of characters that the assistant says.

        A span begins after what asks the assistant to speak, and ends with what ends its turn.

        Raises:
            BadRecord: It cannot be written with this template.
        """
        if any(token in one["content"] for one in messages for token in self._special):
            # It would end a turn, or begin one, that is not there.
            raise BadRecord("a special token in a message")
        if self._tokenizer.chat_template is None:
            return self._plain(messages)
        whole, spans = self._render(messages), []
        for at, one in enumerate(messages):
            if one["role"] != ASSISTANT:
                continue
            asked, said = self._render(messages[:at], asks=True), self._render(messages[: at + 1])
            if not (said.startswith(asked) and whole.startswith(said.rstrip())):
                raise BadRecord("the chat template changes earlier turns")
            spans.append((len(asked), len(said.rstrip())))
        return whole, spans

    def encode(
        self, conversations: Sequence[tuple[str, list[tuple[int, int]]]], length: int
    ) -> list[Conversation]:
        """Tokenize what was written.

        Args:
            conversations: Texts and spans of ``written``.
            length: The most tokens. What is longer is cut.
        """
        if not conversations:
            return []
        encoded = self._tokenizer(
            [text for text, _ in conversations],
            add_special_tokens=False,
            return_offsets_mapping=True,
            return_attention_mask=False,
        )
        made = []
        for (_, spans), ids, offsets in zip(
            conversations, encoded["input_ids"], encoded["offset_mapping"], strict=True
        ):
            starts = np.array([begin for begin, _ in offsets], np.int64)
            said = np.zeros(len(ids), bool)
            for begin, end in spans:
                said |= (starts >= begin) & (starts < end)
            values = np.array(ids, np.int64)
            labels = np.where(said, values, IGNORED).astype(np.int32)
            made.append(
                Conversation(
                    ids=values[:length], labels=labels[:length], cut=max(0, len(ids) - length)
                )
            )
        return made

    def _plain(self, messages: Sequence[Mapping[str, str]]) -> tuple[str, list[tuple[int, int]]]:
        if [one["role"] for one in messages] != ["user", ASSISTANT]:
            raise BadRecord("several turns, and the tokenizer has no chat template")
        asked = messages[0]["content"] + "\n"
        said = asked + messages[1]["content"] + self._tokenizer.eos_token
        return said, [(len(asked), len(said))]

    def _render(self, messages: Sequence[Mapping[str, str]], asks: bool = False) -> str:
        from jinja2 import TemplateError

        try:
            return self._tokenizer.apply_chat_template(
                list(messages), tokenize=False, add_generation_prompt=asks
            )
        except (TemplateError, TypeError, ValueError, IndexError, KeyError) as error:
            reason = str(error).splitlines()[0] if str(error) else type(error).__name__
            raise BadRecord(f"the chat template raises: {reason}") from None


def load_chat_tokenizer(path: str) -> Any:
    """Load a tokenizer of transformers from a local folder, without running code from it.

    Raises:
        CorpusError: There is none.
    """
    from transformers import AutoTokenizer

    require(os.path.isdir(path), f"no tokenizer at {path}: give a local folder")
    try:
        return AutoTokenizer.from_pretrained(path, local_files_only=True, trust_remote_code=False)
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise CorpusError(f"no tokenizer in {path}: {str(error).splitlines()[0]}") from error
