"""The gradient norm of a classifier's last linear layer, from a forward."""

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor
from torch.nn import Linear, Module

from attent_stream.base.errors import ScoreError
from attent_stream.model.output_head import HeadError
from attent_stream.model.wrapping import is_compiled, unwrap
from attent_stream.score.grad_norm import classifier_grad_norms


class LastLayer:
    """Records the input and output of a model's last ``torch.nn.Linear``.

    Args:
        model: A ComposerModel, wrapped or not.

    Raises:
        HeadError: The model has no linear layer, or is compiled.
    """

    def __init__(self, model: Module) -> None:
        layers = [module for module in unwrap(model).modules() if isinstance(module, Linear)]
        if not layers:
            raise HeadError("the model has no linear layer")
        if is_compiled(model):
            raise HeadError("the model is compiled, and the input of its layers cannot be recorded")
        self._module = layers[-1]

    def grad_norms(
        self, forward: Callable[[], Any], target: Tensor, logits_of: Callable[[Any], Tensor]
    ) -> Tensor:
        """Compute the gradient norm of each sample's loss with respect to the layer's weight.

        Args:
            forward: Runs the model.
            target: Classes, ints of shape (B,).
            logits_of: Gets the logits from what ``forward`` returns.

        Returns:
            Float32, shape (B,).

        Raises:
            ScoreError: The layer does not make the logits, or the target is not one class for each
                sample.
        """
        seen: list[tuple[Tensor, Tensor]] = []
        hook = self._module.register_forward_hook(
            lambda module, args, output: seen.append((args[0], output))
        )
        try:
            logits = logits_of(forward())
        finally:
            hook.remove()
        if target.is_floating_point() or target.shape != logits.shape[:1] or logits.ndim != 2:
            raise ScoreError(
                "score 'grad_norm' needs logits (B, C) for classes (B,), got "
                f"{tuple(logits.shape)} for {target.dtype} of shape {tuple(target.shape)}"
            )
        if len(seen) != 1 or not _same(seen[0][1], logits):
            raise ScoreError(
                "score 'grad_norm' needs a model whose last linear layer makes its logits, and "
                "this one's does not"
            )
        with torch.no_grad():
            return classifier_grad_norms(seen[0][0], logits, target).float()


def _same(made: Tensor, logits: Tensor) -> bool:
    return made is logits or (made.shape == logits.shape and made.data_ptr() == logits.data_ptr())
