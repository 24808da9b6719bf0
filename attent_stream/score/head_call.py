"""One call of a model's output head: its input, and the scores computed from it."""

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor
from torch.distributed.tensor import DTensor
from torch.nn import functional as F

from attent_stream.model import reference
from attent_stream.model.output_head import OutputHead, hidden_states
from attent_stream.model.reference import at_least_float32
from attent_stream.score.chunked import transformed
from attent_stream.score.grad_norm import HeadInputs
from attent_stream.score.head import difference, head_scores
from attent_stream.score.token_positions import take_tokens

_CHECKED = 4  # tokens of each sample that are compared
# Relative error that logits may have. The same product in another shape rounds differently, and a
# model scales and caps in its own dtype.
_CLOSE = {torch.float64: 1e-9, torch.float32: 1e-3, torch.bfloat16: 2**-7, torch.float16: 2**-9}

# Verdicts: the scores are used; another scale or cap may fit; the logits are needed
FITS, MISFIT, REFUSED = range(3)


@dataclass(eq=False)
class HeadCall:
    """A hook on the output head that scores the hidden states of one forward.

    Args:
        head: The output head.
        after: Scale and soft cap of the logits.
        labels: Ints of shape (B, T), already shifted.
        positions: Tokens that are scored, or None for all; see ``HeadlessForward``.
        score: Computed instead of the token scores, or None.
        path: A name in ``head.PATHS``.
        compact: See ``head_scores``.
        check: Whether ``compare`` will be called.

    Attributes:
        calls: How often the forward has called the head.
        verdict: ``FITS``, ``MISFIT`` or ``REFUSED``.
        reason: The reason for the verdict, in words.
        scores: The scores. None where the outputs have all logits.
    """

    head: OutputHead
    after: tuple[float, float | None]
    labels: Tensor
    positions: Tensor | None
    score: Callable[[HeadInputs], Tensor] | None
    path: str
    compact: bool | None
    check: bool
    calls: int = field(default=0, init=False)
    verdict: int = field(default=FITS, init=False)
    reason: str | None = field(default=None, init=False)
    scores: tuple[Tensor, ...] | None = field(default=None, init=False)
    _expected: Tensor | None = field(default=None, init=False)
    _compared: Tensor | None = field(default=None, init=False)  # positions

    def __call__(
        self, module: torch.nn.Module, args: tuple, kwargs: dict[str, Any]
    ) -> tuple[tuple, dict] | None:
        hidden = hidden_states(args, kwargs)
        if hidden is None:
            return None
        self.calls += 1
        weight, bias = self.head.operands()
        if self.calls > 1 or not self._fits(hidden, weight):
            return None
        if self.positions is not None:
            hidden = take_tokens(hidden, self.positions)
            self.labels = take_tokens(self.labels, self.positions, reference.IGNORED)
        length = hidden.shape[1]
        spread = torch.arange(0, length, max(1, length // _CHECKED), device=hidden.device)
        self._compared = spread[:_CHECKED]
        few = hidden[:, self._compared] if self.check else hidden[:, :1]
        dtype, (scale, softcap) = self.head.dtype, self.after
        if self.check:
            self._expected = self._logits(few, weight, bias, dtype or hidden.dtype)
        if self.score is not None:
            given = HeadInputs(
                hidden=hidden,
                weight=weight,
                labels=self.labels,
                bias=bias,
                softcap=softcap,
                scale=scale,
                logit_dtype=dtype,
            )
            self.scores = (self.score(given),)
        else:
            scores = head_scores(
                hidden.reshape(-1, hidden.shape[-1]),
                weight,
                self.labels.reshape(-1),
                bias=bias,
                softcap=softcap,
                scale=scale,
                logit_dtype=dtype,
                path=self.path,
                compact=self.compact,
            )
            self.scores = tuple(values.reshape(self.labels.shape) for values in scores)
        return ((few, *args[1:]), kwargs) if args else (args, {**kwargs, "input": few})

    def refuse(self, reason: str) -> None:
        """Set the verdict that the logits are needed."""
        self.verdict, self.reason = REFUSED, reason

    def compare(self, outputs: Any, logits_of: Callable[[Any], Tensor]) -> None:
        """Compare the model's logits of a few tokens with those that were scored."""
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
            for dtype in (logits.dtype, self.head.dtype or logits.dtype)
        )
        logits = at_least_float32(logits)
        finite = logits.isfinite()
        size = logits[finite].norm().item()
        gap = (expected - logits)[finite].norm().item()
        if not torch.equal(finite, expected.isfinite()) or not gap <= close * max(size, 1e-3):
            self.verdict = MISFIT
            self.reason = (
                "it changes its logits in an unknown way (they differ by "
                f"{gap / max(size, 1e-3):.2g} of their size for scale {self.after[0]:.4g} and soft "
                f"cap {self.after[1]})"
            )
            return
        if self.score is not None:
            return
        expected = reference.token_scores(logits, self.labels[:, self._compared])
        error = difference(tuple(values[:, self._compared] for values in self.scores), expected)
        largest = max(1.0, logits[finite].abs().max().item() if finite.any() else 1.0)
        if error > 4 * close * largest:
            self.refuse(
                f"the {self.path} path's scores differ by {error:.2g} from those of its logits"
            )

    def _fits(self, hidden: Tensor, weight: Tensor) -> bool:
        if isinstance(weight, DTensor):
            self.reason = (
                "its output embedding is split over ranks by tensor parallelism "
                f"({weight.placements})"
            )
        elif hidden.shape[:-1] != self.labels.shape or 0 in hidden.shape:
            self.reason = (
                f"hidden states of shape {tuple(hidden.shape)} for labels of shape "
                f"{tuple(self.labels.shape)}"
            )
        return self.reason is None

    def _logits(
        self, hidden: Tensor, weight: Tensor, bias: Tensor | None, dtype: torch.dtype
    ) -> Tensor:
        with torch.autocast(hidden.device.type, enabled=False):
            z = F.linear(
                hidden.to(dtype), weight.to(dtype), None if bias is None else bias.to(dtype)
            )
        return transformed(at_least_float32(z), *self.after)
