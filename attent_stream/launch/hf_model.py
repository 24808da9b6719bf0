"""Wrap a Hugging Face model for Composer."""

from typing import Any

from composer.models import HuggingFaceModel, huggingface

_ASKED = "_is_registered_causal_lm"


def wrapped(model: Any, *, shift_labels: bool, **settings: Any) -> HuggingFaceModel:
    """Make a ``HuggingFaceModel`` without importing all of transformers' models.

    Composer asks whether the model is a registered causal LM. For the answer, transformers imports
    every causal LM that it has: 5 s of processor time in each process, and one of them starts
    torch's compile processes. Composer needs the answer for the default of ``shift_labels`` and
    for a warning. Here ``shift_labels`` is given.

    Args:
        model: A transformers model.
        shift_labels: Whether labels are the inputs, to be shifted by one: for causal LMs.
        settings: Other arguments of ``HuggingFaceModel``.
    """
    asked = vars(huggingface).get(_ASKED)
    try:
        setattr(huggingface, _ASKED, lambda model: shift_labels)
        return HuggingFaceModel(model, shift_labels=shift_labels, **settings)
    finally:
        if asked is not None:
            setattr(huggingface, _ASKED, asked)
