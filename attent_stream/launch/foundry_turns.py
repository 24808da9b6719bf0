"""Conversations of ``attent-stream corpus chat`` as llm-foundry's turns."""

from collections.abc import Sequence

from attent_stream.corpus.conversation import IGNORED


def labels_are_aligned(labels: Sequence[int]) -> bool:
    """Whether labels stand beside their tokens, -100 where the assistant does not speak.

    In llm-foundry's own format they are the tokens that follow the prompt, so none is -100.
    """
    return IGNORED in labels


def turns_of(ids: Sequence[int], labels: Sequence[int]) -> list[dict[str, list[int]]]:
    """Split a conversation into turns of a prompt and an answer.

    Args:
        ids: Its tokens.
        labels: As many: the tokens that the assistant says, and -100 elsewhere.

    Returns:
        A turn for each answer, ``input_ids`` with what stands before it and ``labels`` with the
        answer. What stands after the last answer is left out.

    Raises:
        ValueError: There is no answer.
    """
    turns: list[dict[str, list[int]]] = []
    spoken = True
    for token, label in zip(ids, labels, strict=True):
        speaks = label != IGNORED
        if not turns or (spoken and not speaks):
            turns.append({"input_ids": [], "labels": []})
        turns[-1]["labels" if speaks else "input_ids"].append(int(token))
        spoken = speaks
    if turns and not turns[-1]["labels"]:
        turns.pop()
    if not turns:
        raise ValueError(
            f"expected an answer in the {len(ids)} tokens of a conversation, got none: raise "
            "max_seq_len, or write the corpus with a --seq-len of at most that"
        )
    return turns
