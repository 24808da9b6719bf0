"""Teaching in a training loop of one's own, without Composer's Trainer."""

from collections.abc import Callable, Iterator
from typing import Any

import numpy as np
from numpy.typing import NDArray
from torch import Tensor

from attent_stream.arrange.cutting import apart
from attent_stream.base.span import Clock, Span
from attent_stream.data.candidates import ToDevice
from attent_stream.data.dataloader import TeachingDataLoader
from attent_stream.data.first_features import open_first_features
from attent_stream.fit.arrange_faults import with_what_can_be_arranged
from attent_stream.fit.clock import passes, single_pass
from attent_stream.fit.run import Facts
from attent_stream.fit.settings import parse_settings
from attent_stream.memory.remember import NEVER
from attent_stream.teach.teacher import Teacher


class TeachingLoop:
    """Yields the batches to train on, whole epochs one after the other, until all steps are done.

    What is left away takes the default of the run, as with ``AtteNT``: packed text that is seen
    once is cut into short pieces first and balanced, and everything else is streamed plainly. All
    ranks must iterate together.

    Args:
        loader: Streams the samples.
        steps: Batches that are trained on in all.
        score: Scores a candidate batch as collated, ``batch -> (B,) tensor``, higher = teach it.
            None: nothing is scored.
        to_device: Moves a tensor to where torch.distributed gathers it, such as
            ``lambda tensor: tensor.cuda()``. One rank needs none.
        **settings: Those of ``AtteNT`` that need no model: ``keep``, ``select``, ``temperature``,
            ``interval``, ``warmup``, ``anneal``, ``arrange``, ``seed``.

    Attributes:
        step: Batches that were yielded.

    Raises:
        ValueError: A setting is out of range, cannot be carried out, or needs Composer.
        TypeError: An unknown setting.
    """

    def __init__(
        self,
        loader: TeachingDataLoader,
        *,
        steps: int,
        score: Callable[[Any], Tensor] | None = None,
        to_device: ToDevice = lambda tensor: tensor,
        **settings: Any,
    ) -> None:
        if isinstance(steps, bool) or not isinstance(steps, int) or steps < 1:
            raise ValueError(f"steps must be a whole number of at least 1, got {steps!r}")
        if score is not None and not callable(score):
            raise ValueError(f"score must be a function of a batch, got {score!r}")
        for name in ("remember", "scoring", "target"):
            if settings.get(name) is not None:
                raise ValueError(f"{name} needs Composer: use AtteNT with a Trainer")
        self.step = 0
        self._loader, self._steps, self._to_device = loader, steps, to_device
        self._score = score
        given = None if score is None else self._by_model
        parsed = parse_settings(**settings, score=given, remember=NEVER)
        total = Span(value=steps, unit="ba")
        length = passes(total, loader)
        once = single_pass(length, loader)
        run = parsed.of_run(
            Facts(text=loader.packed, once=once, passes=length, packed=loader.packed)
        )
        if run.scored and score is None:
            raise ValueError("select needs a score: set score to a function of a batch")
        run = with_what_can_be_arranged(run, loader, parsed.arranges_by_name)
        self.told = run.told
        teacher = Teacher(
            run.teacher,
            clock=self._clock,
            total=total,
            scoring=run.scored,
            first_features=open_first_features(loader, to_device),
        )
        loader.attach(teacher)

    @property
    def weights(self) -> NDArray[np.float32] | None:
        """Weights of the current batch's samples, (B,), where the selector gives any."""
        epoch = self._loader.epoch
        weights = None if epoch is None else epoch.lesson[1]
        return None if weights is None or (weights == 1).all() else weights

    def __iter__(self) -> Iterator[Any]:
        """Yield batches as collated. Where samples are cut, a batch has more, shorter rows."""
        while self.step < self._steps:
            for batch in self._loader:
                self._loader.teach(self._scored, self._to_device)
                self.step += 1
                yield self._in_pieces(batch)
                if self.step == self._steps:
                    return

    def state_dict(self) -> dict[str, Any]:
        """Where the loop is, after the batch that was yielded last; the same on all ranks."""
        return {"step": self.step, "loader": self._loader.state_dict()}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Go on from ``state_dict``'s state, before the first batch."""
        self.step = int(state["step"])
        self._loader.load_state_dict(state["loader"])

    def _scored(self, batch: Any) -> Tensor:
        if self._score is None:
            raise ValueError("expected no candidates to score, as there is no score")
        return self._score(batch)

    def _by_model(self, model: Any, batch: Any) -> Tensor:
        return self._scored(batch)

    def _in_pieces(self, batch: Any) -> Any:
        epoch = self._loader.epoch
        if epoch is None or epoch.units == 1:
            return batch
        return apart(batch, epoch.units, len(epoch.lesson[0]) // epoch.units)

    def _clock(self, ahead: int, epoch: int, share: float) -> Clock:
        done = self.step + ahead
        size = self._loader.dataset.row_size
        return Clock(
            ep=epoch + share,
            ba=float(done),
            sp=float(done * size),
            tok=0.0,
            dur=min(1.0, done / self._steps),
        )
