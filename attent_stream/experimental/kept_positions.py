"""The loss of a causal language model on a share of each lesson's positions: attention sees all,
the output head only some.

With the head's forward and backward goes a third of a 125M model's work. Positions are drawn anew
for each batch, each with the same chance, so the gradient is that of the mean over all of them in
expectation; Rho-1 (Lin et al., Not All Tokens Are What You Need, NeurIPS 2024, arXiv 2404.07965)
chooses them by a reference model and still computes the head everywhere.

The labels of the kept positions replace the batch's, in the order in which the head is given their
hidden states, and behind a first label that no position predicts: so a loss that shifts labels by
one, as the model's own does, pairs them rightly, and whoever counts or scores them sees what is
trained on.
"""

import math
from collections.abc import MutableMapping
from typing import Any

import numpy as np
import torch
from composer import Algorithm, Event, State
from composer.loggers import Logger
from composer.utils import dist
from torch import Tensor
from torch.nn import Module
from torch.nn import functional as F
from torch.utils.hooks import RemovableHandle

from attent_stream.base.duration import clock_of, total_span
from attent_stream.base.errors import AttentError
from attent_stream.base.schedule import Phases
from attent_stream.base.span import Span
from attent_stream.model.output_head import HeadError, OutputHead, find_head, hidden_states
from attent_stream.model.reference import IGNORED
from attent_stream.model.traits import Traits
from attent_stream.score.token_positions import ROUNDING
from attent_stream.score.token_positions import take_tokens as at

# Of a batch: int64 of shape (B, K + 1), the last of each row stands for none
KEY = "attent_positions"


def drawn_positions(
    labels: Tensor, share: float, generator: torch.Generator
) -> tuple[Tensor, Tensor]:
    """Positions to train on, and their labels.

    Args:
        labels: Not shifted, ints of shape (B, T); ``-100`` is ignored. Position t predicts label t
            + 1.
        share: Of a sample's positions that predict something, in (0, 1]; rounded up.
        generator: On the CPU, whatever the labels' device.

    Returns:
        ``(positions, kept)``: int64 of shape (B, K + 1) with K = ceil(share (T - 1)), where
        ``kept[:, j + 1]`` is the label that ``positions[:, j]`` predicts, or ``-100`` beyond the
        sample's own; ``positions[:, K]`` and ``kept[:, 0]`` are there for the shift only.
    """
    targets = labels[:, 1:]
    counted = targets != IGNORED
    size = math.ceil(share * targets.shape[1] - ROUNDING)
    draw = torch.rand(targets.shape, generator=generator).to(labels.device)
    order = torch.where(counted, draw, 2.0).argsort(dim=1)[:, :size]  # what predicts nothing last
    own = (counted.sum(dim=1, keepdim=True).double() * share - ROUNDING).ceil()
    beyond = torch.arange(size, device=labels.device)[None, :] >= own
    kept = targets.gather(1, order).masked_fill(beyond, IGNORED)
    return F.pad(order, (0, 1)), F.pad(kept, (1, 0), value=IGNORED)


class KeptPositions(Algorithm):
    """Gives the model's output head the drawn positions only.

    Args:
        share: Share of each sample's positions, in (0, 1].
        warmup: Time at the start of training with all positions.
        anneal: Time at the end of training with all positions.
        seed: Seed of the draws.

    Raises:
        ValueError: A share out of range, or a bad time.
    """

    def __init__(
        self, share: float, warmup: str = "0ba", anneal: str = "0ba", seed: int = 17
    ) -> None:
        number = isinstance(share, (int, float)) and not isinstance(share, bool)
        if not number or not 0 < share <= 1:
            raise ValueError(f"kept_positions.share must be in (0, 1], got {share!r}")
        self._share, self._seed = share, (seed, dist.get_global_rank())
        self._phases = Phases(warmup=Span.parse(warmup), anneal=Span.parse(anneal))
        self._found: OutputHead | None = None
        self._drawn = False  # positions for this batch
        self._hook: RemovableHandle | None = None
        self._called = False  # the head, in this forward
        self._events = {
            Event.FIT_START: self._fit_start,
            Event.BATCH_START: self._batch_start,
            Event.BEFORE_FORWARD: self._before_forward,
            Event.AFTER_FORWARD: self._after_forward,
        }

    @property
    def head_share(self) -> float:
        """Share of the positions that the output head is given."""
        return self._share

    def match(self, event: Event, state: State) -> bool:
        """Whether it does anything at this event."""
        return self._share < 1 and event in self._events

    def apply(self, event: Event, state: State, logger: Logger) -> None:
        """Do it."""
        self._events[event](state)

    def _fit_start(self, state: State) -> None:
        self._phases.check(total_span(state.max_duration))
        try:
            self._found = find_head(state.model)
        except HeadError as error:
            raise AttentError(
                "kept_positions needs a causal language model whose output head can be found: "
                f"{error}"
            ) from None
        if not Traits.of(state.model).shift_labels:
            raise AttentError(
                "kept_positions needs a causal language model, in which a position predicts the "
                "next label"
            )

    def _batch_start(self, state: State) -> None:
        now, total = clock_of(state), total_span(state.max_duration)
        self._drawn = self._phases.teaching(now, total)
        if self._drawn:
            self.draw(state.batch, int(state.timestamp.batch))

    def _before_forward(self, state: State) -> None:
        if self._drawn:
            self.begin_forward(state.batch)

    def _after_forward(self, state: State) -> None:
        if self._drawn:
            self.forward_done()

    def draw(self, batch: Any, number: int) -> None:
        """Before a batch is split into microbatches: its labels become those of the kept positions.

        Args:
            batch: A mapping with ``labels`` of shape (B, T), changed in place.
            number: Of the batch in training.

        Raises:
            AttentError: No such labels.
        """
        labels = batch.get("labels") if isinstance(batch, MutableMapping) else None
        if not isinstance(labels, Tensor) or labels.ndim != 2 or labels.shape[1] < 2:
            got = (
                f"shape {tuple(labels.shape)}"
                if isinstance(labels, Tensor)
                else type(labels).__name__
            )
            raise AttentError(
                f"kept_positions={self._share:g} needs a batch with labels of shape (B, T), "
                f"got {got}"
            )
        generator = torch.Generator().manual_seed(
            int(np.random.SeedSequence((*self._seed, number)).generate_state(1, np.uint64)[0])
        )
        batch[KEY], batch["labels"] = drawn_positions(labels, self._share, generator)

    def begin_forward(self, batch: Any) -> None:
        """Before a forward on a microbatch."""
        self.cancel()  # a forward that failed
        positions = batch[KEY]

        def gather(module: Module, args: tuple, kwargs: dict) -> tuple[tuple, dict] | None:
            hidden = hidden_states(args, kwargs)
            if hidden is None:  # it looks up embeddings
                return None
            if hidden.ndim != 3 or len(hidden) != len(positions):
                raise AttentError(
                    f"kept_positions={self._share:g} expected the output head to be given hidden "
                    f"states of shape ({len(positions)}, T, D), got {tuple(hidden.shape)}"
                )
            kept = at(hidden, positions)
            self._called = True
            return ((kept, *args[1:]), kwargs) if args else (args, {**kwargs, "input": kept})

        self._hook = self._found.module.register_forward_pre_hook(gather, with_kwargs=True)

    def forward_done(self) -> None:
        """After it.

        Raises:
            AttentError: The head was never called.
        """
        called = self._called
        self.cancel()
        if not called:
            raise AttentError(
                f"kept_positions={self._share:g} has no effect on this model, whose forward does "
                "not call its output head (a loss fused with it): leave kept_positions away"
            )

    def cancel(self) -> None:
        """Leave the head as it is."""
        if self._hook is not None:
            self._hook.remove()
        self._hook, self._called = None, False
