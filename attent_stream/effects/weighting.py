"""Weighted losses, by multiplying the gradient of each sample's outputs by the sample's weight.

A loss that is a sum or mean over samples or tokens depends on a sample only through its outputs. So
this gives exactly the gradient of the weighted loss, for any reduction, micro-batching and loss
scaling. The logged loss stays unweighted. Terms without outputs, such as a router's auxiliary loss,
are not weighted.
"""

from collections.abc import Callable, Mapping
from contextlib import suppress
from typing import Any

from torch import Tensor
from torch.nn import Module
from torch.utils.hooks import RemovableHandle

from attent_stream.base.errors import AttentError
from attent_stream.model.batch import batch_length
from attent_stream.model.output_head import HeadError, OutputHead, find_head
from attent_stream.model.reading import Path, Reading, at_path

_INSTEAD = "use a select without weights (hard, soft, random)"


class WeightedOutputs:
    """Weights the gradients of a batch's forwards, micro-batch by micro-batch.

    A Hugging Face model computes its loss within its forward, so the logits are taken from its
    output head. Other models' outputs are what the forward returns.

    Args:
        model: A ComposerModel, wrapped or not.
        rows: Counts the samples of a micro-batch.
    """

    def __init__(self, model: Module, rows: Callable[[Any], int] = batch_length) -> None:
        self._rows = rows
        try:
            self._head: OutputHead | None = find_head(model)
        except HeadError:
            self._head = None
        self._weights: Tensor | None = None  # of the batch
        self._done = 0  # samples of the batch that were forwarded
        self._hook: RemovableHandle | None = None
        self._made: list[Any] = []  # outputs of the head in this forward
        self._output: Tensor | None = None  # whose gradient the next backward weights
        self._checked = False
        self._at: Path | None = None

    @property
    def weighted(self) -> bool:
        """Whether the batch has weights."""
        return self._weights is not None

    def begin_batch(self, weights: Tensor | None) -> None:
        """Begin a batch, before its first forward.

        Args:
            weights: Weights of the whole batch, float32 of shape (B,) on the device of the outputs;
                None if all are 1.
        """
        self._weights, self._done = weights, 0
        self._cancel()  # after a forward that failed

    def read_by(self, reading: Reading | None) -> None:
        """Use the path to the outputs that the loss was found to use."""
        self._at = None if reading is None else reading.outputs

    def begin_forward(self) -> None:
        """Begin a forward."""
        self._cancel()
        if self._weights is not None and self._head is not None:
            self._hook = self._head.module.register_forward_hook(
                lambda module, args, output: self._made.append(output)
            )

    def forward_done(self, outputs: Any, batch: Any, factors: Tensor | None = None) -> None:
        """Weight the gradients in the backward of the last forward.

        Args:
            outputs: What the model returned.
            batch: The micro-batch.
            factors: Additional factors of the samples' weights, float32 of shape (b,), or None.

        Raises:
            AttentError: There is not exactly one output with a row for each sample. With several,
                one may be computed from another.
        """
        if self._weights is None:
            return
        size = self._rows(batch)
        weights = self._weights[self._done : self._done + size]
        self._done += size
        if len(weights) != size:
            raise AttentError(
                f"expected the batch's {len(self._weights)} lessons in its micro-batches, got "
                f"{self._done} samples: remove the algorithm that changes batches, or {_INSTEAD}"
            )
        weights = weights if factors is None else weights * factors
        output = self._weighted(outputs, size)
        shaped = weights.reshape(-1, *[1] * (output.ndim - 1))
        output.register_hook(lambda gradient: (gradient * shaped).to(gradient.dtype))
        self._output = output

    def _weighted(self, outputs: Any, size: int) -> Tensor:
        """Return the output whose gradient is weighted."""
        classes = None if self._head is None else self._head.classes
        logits = [made for made in _tensors(self._made) if made.shape[-1:] == (classes,)]
        if self._at is not None and not logits:
            # The path was found in eval mode; in training there may be other outputs.
            with suppress(LookupError):
                outputs = at_path(outputs, self._at)
        elif isinstance(outputs, Mapping) and "logits" in outputs:
            outputs = outputs["logits"]
        found = logits or _tensors(outputs)
        self._cancel()
        fit = [
            tensor
            for tensor in found
            if tensor.requires_grad and tensor.ndim and len(tensor) == size
        ]
        if len(fit) != 1:
            raise AttentError(
                f"expected one differentiable output with a row for each of the micro-batch's "
                f"{size} samples, got {len(fit)} among outputs of shapes "
                f"{[tuple(tensor.shape) for tensor in found]}: {_INSTEAD}"
            )
        return fit[0]

    def loss_done(self, loss: Any) -> None:
        """Check once that the loss is computed from the weighted output.

        Raises:
            AttentError: It is not, so the weights would have no effect.
        """
        output, self._output = self._output, None
        if output is None or self._checked:
            return
        if not any(_depends(one, output) for one in _tensors(loss)):
            raise AttentError(
                "weights of lessons have no effect on this model's loss, as it is not computed "
                "from its outputs (a compiled forward that computes the loss itself, or a loss "
                f"fused with the output head): {_INSTEAD}"
            )
        self._checked = True

    def _cancel(self) -> None:
        if self._hook is not None:
            self._hook.remove()
        self._hook, self._made, self._output = None, [], None


def _tensors(value: Any) -> list[Tensor]:
    """List the float tensors of outputs or losses."""
    if isinstance(value, Tensor):
        return [value] if value.is_floating_point() else []
    parts = (
        value.values()
        if isinstance(value, Mapping)
        else value
        if isinstance(value, (tuple, list))
        else ()
    )
    return [tensor for part in parts for tensor in _tensors(part)]


def _depends(loss: Tensor, output: Tensor) -> bool:
    """Whether a loss was computed from this tensor, by at least one step of its graph."""
    target = output.grad_fn
    seen, front = set(), [loss.grad_fn]
    # One compiled function returned both, and its inner graph is not weighted.
    if loss.grad_fn is target:
        return False
    while front:
        node = front.pop(0)
        if node is target:
            return True
        for following, _ in node.next_functions if node is not None else ():
            if following is not None and following not in seen:
                seen.add(following)
                front.append(following)
    return False
