"""What scoring needs of a batch and of a model's outputs: inputs, labels and logits."""

from collections.abc import Mapping
from typing import Any

from torch import Tensor
from torch.nn import Module

from attent_stream.base.errors import ScoreError
from attent_stream.model.batch import describe
from attent_stream.model.first_reading import logits_path, target_path
from attent_stream.model.reading import at_path
from attent_stream.model.traits import Traits
from attent_stream.model.wrapping import unwrap

USE_CALLABLE = "pass score=callable, (model, batch) -> float tensor of shape (B,)"


def usual_target(batch: Any) -> Tensor:
    """Get the labels of a batch: a mapping's ``labels``, or the second item of a pair.

    Raises:
        ScoreError: There are none.
    """
    pair = isinstance(batch, (tuple, list)) and len(batch) == 2
    if not isinstance(batch, Mapping) and not (pair and isinstance(batch[1], Tensor)):
        raise ScoreError(
            f"a batch must be a mapping with 'labels' or (input, target), got {describe(batch)}; "
            f"or {USE_CALLABLE}"
        )
    try:
        return at_path(batch, target_path(batch))
    except LookupError as error:
        raise ScoreError(
            f"the batch has no tensor 'labels', it has {describe(batch)}; add labels or "
            f"{USE_CALLABLE}"
        ) from error


def usual_logits(outputs: Any) -> Tensor:
    """Get the logits of outputs; see ``logits_path``.

    Raises:
        ScoreError: There are none with a row for each sample.
    """
    path = logits_path(outputs)
    try:
        found = None if path is None else at_path(outputs, path)
    except LookupError:
        found = None
    if found is None or found.ndim == 0:
        raise ScoreError(
            f"the model's outputs give no score per sample, got {describe(outputs)} without logits;"
            f" {USE_CALLABLE}"
        )
    return found


def model_inputs(traits: Traits, model: Module, batch: Any) -> Any:
    """Return a batch without labels, so that a Hugging Face model computes no loss.

    The batches of other models are returned as they are.

    Raises:
        ScoreError: An encoder-decoder cannot make its ``decoder_input_ids`` from the labels.
    """
    names = traits.forward_args
    if names is None or not isinstance(batch, Mapping):
        return batch
    inputs = {key: value for key, value in batch.items() if key != "labels"}
    if "use_cache" in names:
        inputs.setdefault("use_cache", False)  # the cache would be kept for nothing
    if traits.encoder_decoder and "decoder_input_ids" not in inputs:
        prepare = getattr(unwrap(model).model, "prepare_decoder_input_ids_from_labels", None)
        if prepare is None:
            raise ScoreError(
                f"an encoder-decoder batch needs decoder_input_ids, got {describe(batch)}; or "
                f"{USE_CALLABLE}"
            )
        inputs["decoder_input_ids"] = prepare(labels=usual_target(batch))
    return inputs
