"""A model's forward that stops short of the logits: token scores are computed where the model would
compute them.

A hook on the output head takes the final hidden states, scores them tile by tile
(``head.head_scores``) and lets the head go on with a few of them only. It runs inside the model's
own forward, so whatever wraps the model (DDP, FSDP 1 and 2, autocast) has the head's parameters
whole and in the right dtype there. What the model makes of the few is compared with what was
computed, so that an unknown scaling, adapter or cap is found out and never scored wrongly.
"""

import logging
from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor
from torch import distributed as dist
from torch.distributed.tensor import DTensor
from torch.nn import functional as F

from attent_stream.base.errors import AttentError
from attent_stream.model import reference
from attent_stream.model.device_memory import out_of_memory
from attent_stream.model.output_head import OutputHead, hidden_states
from attent_stream.score.chunked import transformed
from attent_stream.score.grad_norm import HeadInputs
from attent_stream.score.head import SMALL, difference, head_scores
from attent_stream.score.token_positions import take_tokens

log = logging.getLogger(__name__)

_CHECK_EVERY = 256  # forwards: the comparison waits for the device
_CHECKED = 4  # tokens of each sample that are compared
_DENSE = 0.9  # share of tokens with a label, below which a GPU had better leave the others out
# How far logits may be apart, as a share of their size: the same product in another shape rounds
# differently, and a model scales and caps in its own dtype.
_CLOSE = {torch.float64: 1e-9, torch.float32: 1e-3, torch.bfloat16: 2**-7, torch.float16: 2**-9}

# Of an attempt: used; another scale or cap may fit; the logits are needed
FITS, MISFIT, REFUSED = range(3)


class HeadlessForward:
    """Runs a model's forward for its token scores; where that cannot be done, for its logits.

    Args:
        head: The model's.
        path: A name in ``head.PATHS``. With ``auto`` few logits are left to a model that is not
            sharded.
        sharded: Whether a forward needs all ranks, who then decide together.

    Attributes:
        refused: Why this model's logits are needed after all, or None.
        classes: In the model's logits.
    """

    def __init__(self, head: OutputHead, *, path: str = "auto", sharded: bool = False) -> None:
        self.refused: str | None = None
        self.classes = head.classes
        self._head = head
        self._path = path
        self._sharded = sharded
        # The first is taken for true until the model shows that it is not
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
        """Token scores of one batch, or ``score`` of it.

        Args:
            forward: Runs the model on it, without gradients; called again if the first attempt
                turns out to be wrong.
            labels: Ints of shape (B, T), already shifted; ``-100`` is ignored.
            logits_of: The logits in what ``forward`` returns.
            positions: Ints of shape (B, K), which tokens are scored, -1 is none; None: all.
            score: Computed in the token scores' place, of shape (B,).
            must: Whether logits are of no use, however few they are.

        Returns:
            ``((nll, residual_sq), None)`` of shape (B, T) each, or (B, K) with ``positions``;
            ``((score,), None)`` with ``score``; or ``(None, outputs)`` with all logits in them.

        Raises:
            AttentError: A sharded model whose forward fails without all of its logits.
        """
        # Ranks of a sharded model check together, so all count the same forwards whatever the size
        # of their batches.
        few = (
            self._path == "auto"
            and not must
            and not self._sharded
            and labels.numel() * self._head.classes < SMALL
        )
        while self.refused is None and not few:
            check = self._forwards % _CHECK_EVERY == 0
            visit = _Visit(
                self._head,
                self._after[0],
                labels,
                positions,
                score,
                self._path,
                self._compact,
                check,
            )
            outputs = self._run(forward, visit)
            if check:
                visit.compare(outputs, logits_of)
                self._agree(visit, labels.device)
            if visit.verdict == FITS:
                if check:
                    self._look_at(labels)
                self._forwards += 1
                return (visit.scores, None) if visit.scores is not None else (None, outputs)
            if not check and self._sharded:
                raise AttentError(
                    "scoring without logits worked before and no longer does on this rank: "
                    f"{visit.reason}"
                )
            if visit.verdict == MISFIT and len(self._after) > 1:
                self._after.pop(0)
            else:
                self.refused = visit.reason
                log.warning(
                    "Scoring computes all logits, as this model needs them: %s.", visit.reason
                )
        return None, forward()

    def _run(self, forward: Callable[[], Any], visit: "_Visit") -> Any:
        hook = self._head.module.register_forward_pre_hook(visit, with_kwargs=True)
        try:
            outputs = forward()
        except Exception as error:
            if visit.scores is None or out_of_memory(error):
                raise
            visit.refuse(f"it fails without all of its logits ({type(error).__name__}: {error})")
            if self._sharded:  # the other ranks wait within it
                raise AttentError(f"the model cannot be scored as usual: {visit.reason}") from error
            return None
        finally:
            hook.remove()
        if visit.calls > 1:
            visit.refuse("its forward calls its output embedding more than once")
        return outputs

    def _agree(self, visit: "_Visit", device: torch.device) -> None:
        """One verdict on all ranks of a sharded model: a forward by some only would wait
        for ever.
        """
        if not self._sharded or not dist.is_initialized():
            return
        verdict = torch.tensor(float(visit.verdict), device=device)
        dist.all_reduce(verdict, op=dist.ReduceOp.MAX)
        if int(verdict.item()) > visit.verdict:
            visit.verdict, visit.reason = int(verdict.item()), "it does not work on another rank"

    def _look_at(self, labels: Tensor) -> None:
        if labels.device.type != "cpu":
            self._compact = bool((labels != reference.IGNORED).float().mean().item() < _DENSE)


class _Visit:
    """One call of the head: what came in, and what was computed from it."""

    def __init__(
        self,
        head: OutputHead,
        after: tuple[float, float | None],
        labels: Tensor,
        taken: Tensor | None,
        score: Callable[[HeadInputs], Tensor] | None,
        path: str,
        compact: bool | None,
        check: bool,
    ) -> None:
        self.calls = 0
        self.verdict = FITS
        self.reason: str | None = None
        self.scores: tuple[Tensor, ...] | None = None  # None: the outputs have all logits
        self._head, self._labels, self._path, self._compact, self._check = (
            head,
            labels,
            path,
            compact,
            check,
        )
        self._scale, self._softcap = after
        self._taken, self._score = taken, score
        self._expected: Tensor | None = None
        self._positions: Tensor | None = None

    def __call__(
        self, module: torch.nn.Module, args: tuple, kwargs: dict[str, Any]
    ) -> tuple[tuple, dict] | None:
        hidden = hidden_states(args, kwargs)
        if hidden is None:
            return None
        self.calls += 1
        weight, bias = self._head.operands()
        if self.calls > 1 or not self._fits(hidden, weight):
            return None
        if self._taken is not None:
            hidden, self._labels = (
                take_tokens(hidden, self._taken),
                take_tokens(self._labels, self._taken, reference.IGNORED),
            )
        length = hidden.shape[1]
        self._positions = torch.arange(0, length, max(1, length // _CHECKED), device=hidden.device)[
            :_CHECKED
        ]
        few = hidden[:, self._positions] if self._check else hidden[:, :1]
        dtype = self._head.dtype
        if self._check:
            self._expected = self._logits(few, weight, bias, dtype or hidden.dtype)
        if self._score is not None:
            given = HeadInputs(
                hidden=hidden,
                weight=weight,
                labels=self._labels,
                bias=bias,
                softcap=self._softcap,
                scale=self._scale,
                logit_dtype=dtype,
            )
            self.scores = (self._score(given),)
            return ((few, *args[1:]), kwargs) if args else (args, {**kwargs, "input": few})
        scores = head_scores(
            hidden.reshape(-1, hidden.shape[-1]),
            weight,
            self._labels.reshape(-1),
            bias=bias,
            softcap=self._softcap,
            scale=self._scale,
            logit_dtype=dtype,
            path=self._path,
            compact=self._compact,
        )
        self.scores = tuple(values.reshape(self._labels.shape) for values in scores)
        return ((few, *args[1:]), kwargs) if args else (args, {**kwargs, "input": few})

    def refuse(self, reason: str) -> None:
        """Its logits are needed."""
        self.verdict, self.reason = REFUSED, reason

    def compare(self, outputs: Any, logits_of: Callable[[Any], Tensor]) -> None:
        """Judge the scores by what the model made of a few tokens."""
        if self.verdict != FITS:
            return
        if self.scores is None:
            self.refuse(self.reason or "its forward does not call its output embedding")
            return
        logits, expected = logits_of(outputs), self._expected
        if logits.shape != expected.shape:
            self.refuse(
                f"its logits have shape {tuple(logits.shape)} where {tuple(expected.shape)} was "
                "expected"
            )
            return
        close = max(
            _CLOSE.get(dtype, _CLOSE[torch.bfloat16])
            for dtype in (logits.dtype, self._head.dtype or logits.dtype)
        )
        logits = _exact(logits)
        finite = logits.isfinite()
        size = logits[finite].norm().item()
        gap = (expected - logits)[finite].norm().item()
        if not torch.equal(finite, expected.isfinite()) or not gap <= close * max(size, 1e-3):
            self.verdict = MISFIT
            self.reason = (
                "it does to its logits what is not known here (they differ by "
                f"{gap / max(size, 1e-3):.2g} of their size"
                f" for scale {self._scale:.4g} and soft cap {self._softcap})"
            )
            return
        if self._score is not None:
            return
        labels = self._labels[:, self._positions]
        error = difference(
            tuple(values[:, self._positions] for values in self.scores),
            reference.token_scores(logits, labels),
        )
        largest = max(1.0, logits[finite].abs().max().item() if finite.any() else 1.0)
        if error > 4 * close * largest:
            self.refuse(
                f"the {self._path} path's scores differ by {error:.2g} from those of its logits"
            )

    def _fits(self, hidden: Tensor, weight: Tensor) -> bool:
        if isinstance(weight, DTensor):
            self.reason = (
                "its output embedding is split over ranks by tensor parallelism "
                f"({weight.placements})"
            )
        elif hidden.shape[:-1] != self._labels.shape or 0 in hidden.shape:
            self.reason = (
                f"hidden states of shape {tuple(hidden.shape)} for labels of shape "
                f"{tuple(self._labels.shape)}"
            )
        return self.reason is None

    def _logits(
        self, hidden: Tensor, weight: Tensor, bias: Tensor | None, dtype: torch.dtype
    ) -> Tensor:
        with torch.autocast(hidden.device.type, enabled=False):
            z = F.linear(
                hidden.to(dtype), weight.to(dtype), None if bias is None else bias.to(dtype)
            )
        return transformed(_exact(z), self._scale, self._softcap)


def _exact(z: Tensor) -> Tensor:
    return z if z.dtype == torch.float64 else z.float()
