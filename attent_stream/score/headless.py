"""A model's forward that stops short of the logits, where token scores are computed instead.

A hook on the output head takes the final hidden states, scores them (``head.head_scores``) and lets
the head continue with only a few of them. It runs inside the model's own forward. So whatever wraps
the model (DDP, FSDP 1 and 2, autocast) has made the head's parameters whole and of the right dtype.
The logits of the few are compared with those that were scored, so that an unknown scaling, adapter
or cap is detected and never scored wrongly.
"""

import logging
from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor
from torch import distributed as dist

from attent_stream.base.errors import AttentError
from attent_stream.model import reference
from attent_stream.model.device_memory import out_of_memory
from attent_stream.model.output_head import OutputHead
from attent_stream.score.grad_norm import HeadInputs
from attent_stream.score.head_call import FITS, MISFIT, HeadCall
from attent_stream.score.logit_scores import SMALL

log = logging.getLogger(__name__)

_CHECK_EVERY = 256  # forwards, as a comparison waits for the device
_DENSE = 0.9  # with a smaller share of labeled tokens, a GPU should leave out the others


class HeadlessForward:
    """Runs a model's forward for its token scores or, where that fails, for its logits.

    Args:
        head: The model's output head.
        path: A name in ``head.PATHS``. With ``auto``, a model that is not sharded computes its
            logits where they are few.
        sharded: Whether a forward needs all ranks. They then decide together.

    Attributes:
        refused: Why this model's logits are needed, or None.
        classes: Number of classes in the model's logits.
    """

    def __init__(self, head: OutputHead, *, path: str = "auto", sharded: bool = False) -> None:
        self.refused: str | None = None
        self.classes = head.classes
        self._head = head
        self._path = path
        self._sharded = sharded
        # The first is used until the model shows that it is wrong
        self._after = list(head.after)
        self._forwards = 0
        self._compact: bool | None = None

    def __call__(
        self,
        forward: Callable[[], Any],
        labels: Tensor,
        logits_of: Callable[[Any], Tensor],
        positions: Tensor | None = None,
        score: Callable[[HeadInputs], Tensor] | None = None,
        must: bool = False,
    ) -> tuple[tuple[Tensor, ...] | None, Any]:
        """Compute the token scores of one batch, or ``score``.

        Args:
            forward: Runs the model on the batch without gradients. It is called again if the first
                attempt turns out to be wrong.
            labels: Ints of shape (B, T), already shifted; ``-100`` is ignored.
            logits_of: Gets the logits from what ``forward`` returns.
            positions: Tokens that are scored, ints of shape (B, K), padded with -1. None: all.
            score: Computed instead of the token scores, shape (B,).
            must: Whether the score cannot be computed from logits.

        Returns:
            ``((nll, residual_sq), None)`` of shape (B, T) each, or (B, K) with ``positions``.
            ``((score,), None)`` with ``score``. ``(None, outputs)`` with all logits in the outputs.

        Raises:
            AttentError: The forward of a sharded model fails without all of its logits.
        """
        # Ranks of a sharded model check together. So they must count the same forwards, whatever
        # the size of their batches.
        few = (
            self._path == "auto"
            and not must
            and not self._sharded
            and labels.numel() * self._head.classes < SMALL
        )
        while self.refused is None and not few:
            check = self._forwards % _CHECK_EVERY == 0
            call = HeadCall(
                self._head,
                self._after[0],
                labels,
                positions,
                score,
                self._path,
                self._compact,
                check,
            )
            outputs = self._run(forward, call)
            if check:
                call.compare(outputs, logits_of)
                self._agree(call, labels.device)
            if call.verdict == FITS:
                if check:
                    self._measure_density(labels)
                self._forwards += 1
                return (call.scores, None) if call.scores is not None else (None, outputs)
            if not check and self._sharded:
                raise AttentError(
                    "scoring without logits worked before and no longer does on this rank: "
                    f"{call.reason}"
                )
            if call.verdict == MISFIT and len(self._after) > 1:
                self._after.pop(0)
            else:
                self.refused = call.reason
                log.warning(
                    "Scoring computes all logits, as this model needs them: %s.", call.reason
                )
        return None, forward()

    def _run(self, forward: Callable[[], Any], call: HeadCall) -> Any:
        hook = self._head.module.register_forward_pre_hook(call, with_kwargs=True)
        try:
            outputs = forward()
        except Exception as error:
            if call.scores is None or out_of_memory(error):
                raise
            call.refuse(f"it fails without all of its logits ({type(error).__name__}: {error})")
            if self._sharded:  # the other ranks wait in the forward
                raise AttentError(f"the model cannot be scored as usual: {call.reason}") from error
            return None
        finally:
            hook.remove()
        if call.calls > 1:
            call.refuse("its forward calls its output embedding more than once")
        return outputs

    def _agree(self, call: HeadCall, device: torch.device) -> None:
        """Agree on the worst verdict of all ranks, as a forward by some ranks only would hang."""
        if not self._sharded or not dist.is_initialized():
            return
        verdict = torch.tensor(float(call.verdict), device=device)
        dist.all_reduce(verdict, op=dist.ReduceOp.MAX)
        if int(verdict.item()) > call.verdict:
            call.verdict, call.reason = int(verdict.item()), "it does not work on another rank"

    def _measure_density(self, labels: Tensor) -> None:
        if labels.device.type != "cpu":
            self._compact = bool((labels != reference.IGNORED).float().mean().item() < _DENSE)
