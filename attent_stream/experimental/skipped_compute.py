"""Compute that a batch's training leaves out: the loss of some positions, the backward of some
microbatches.
"""

from dataclasses import dataclass
from typing import Any

from composer import State
from composer.utils import dist

from attent_stream.experimental.kept_backward import KeptBackward
from attent_stream.experimental.kept_positions import KeptPositions
from attent_stream.model.batch import batch_length


@dataclass(frozen=True, kw_only=True)
class SkippedComputeSettings:
    """How much is done.

    Args:
        positions: Share of each lesson's positions whose loss is trained on, in (0, 1].
        backward: Share of each batch's microbatches that go backward, in (0, 1].

    Raises:
        ValueError: One out of range.
    """

    positions: float = 1.0
    backward: float = 1.0

    def __post_init__(self) -> None:
        for name in ("positions", "backward"):
            value = getattr(self, name)
            number = isinstance(value, (int, float)) and not isinstance(value, bool)
            if not number or not 0 < value <= 1:
                raise ValueError(f"{name} must be in (0, 1], got {value!r}")

    @property
    def some(self) -> bool:
        """Whether anything is left out at all."""
        return self.positions < 1 or self.backward < 1


class SkippedCompute:
    """Leaves it out of one batch after the other, over the fits of a run.

    Args:
        settings: How much.
        seed: Of the draws.
    """

    def __init__(self, settings: SkippedComputeSettings, seed: int) -> None:
        self._settings, self._seed = settings, seed
        self._positions: KeptPositions | None = None
        self._backward = KeptBackward(settings.backward) if settings.backward < 1 else None
        self._works = self._drawn = False  # in this batch; its positions are drawn

    def open(self, state: State, batch_size: int, resumed: dict[str, Any] | None) -> None:
        """Be there for a fit.

        Args:
            state: Of the run.
            batch_size: Samples of a full batch on each rank.
            resumed: AtteNT's state of a checkpoint to go on from, or None.

        Raises:
            AttentError: A model whose positions cannot be left out.
            ValueError: ``backward`` with batches of one microbatch, with FSDP, or with automatic
                microbatching on several ranks.
        """
        if self._settings.positions < 1:
            seed = (self._seed, dist.get_global_rank())
            self._positions = KeptPositions(state.model, share=self._settings.positions, seed=seed)
        if self._backward is not None:
            if state.fsdp_enabled:
                raise ValueError(
                    "backward must be 1 with FSDP, whose ranks' backwards go together, got "
                    f"{self._settings.backward}"
                )
            if state.auto_microbatching and dist.get_world_size() > 1:
                raise ValueError(
                    f"backward={self._settings.backward} on several ranks needs "
                    "device_train_microbatch_size to be a number of "
                    "samples, got auto"
                )
            size = state.device_train_microbatch_size
            if not state.auto_microbatching and not (
                isinstance(size, int) and 2 * size <= batch_size
            ):
                raise ValueError(
                    f"backward={self._settings.backward} keeps some of a batch's microbatches: "
                    "device_train_microbatch_size must be "
                    f"at most half of the batch's {batch_size} samples on each rank, got {size!r}"
                )
            if resumed is not None:
                self._backward.load(resumed.get("backward"))

    def forget(self) -> None:
        """Begin with nothing."""
        if self._backward is not None:
            self._backward.load(None)

    def draw(self, state: State, teaching: bool) -> None:
        """Before a batch is split into microbatches.

        Args:
            state: Of the run.
            teaching: Whether anything may be left out: not so in ``warmup`` and ``anneal``.
        """
        self._works = teaching
        self._drawn = teaching and self._positions is not None
        if self._drawn:
            self._positions.draw(state.batch, int(state.timestamp.batch))

    def begin_batch(self, state: State) -> None:
        """Before a batch's first forward, also where one that failed begins anew."""
        if self._works and self._backward is not None:
            self._backward.begin_batch(
                -(-batch_length(state.batch) // state.device_train_microbatch_size)
            )

    def begin_forward(self, state: State) -> None:
        """Before a forward."""
        if self._drawn:
            self._positions.begin_forward(state.batch)

    def forward_done(self) -> None:
        """After it."""
        if self._drawn:
            self._positions.forward_done()

    def loss_done(self, state: State) -> None:
        """Once the loss is there."""
        if self._works and self._backward is not None:
            self._backward.loss_done(state)

    def state_dict(self) -> list[float] | None:
        """Losses of late that ``backward`` compares with; None where there are none."""
        return None if self._backward is None else self._backward.state()
