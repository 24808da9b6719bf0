"""One fit: all that AtteNT has while a Trainer trains, built when the fit starts."""

import time
from dataclasses import dataclass
from typing import Any

import torch
from composer import State
from composer.devices import Device
from composer.loggers import Logger
from composer.utils import dist

from attent_stream.base.gather import gather_ranks
from attent_stream.base.randomness import random_state
from attent_stream.base.stopwatch import Stopwatch
from attent_stream.data.dataloader import TeachingDataLoader
from attent_stream.effects.effect import Effect, Effects
from attent_stream.effects.noise_scale import NoiseScale
from attent_stream.effects.planned_length import PlannedLength
from attent_stream.effects.recorder import Recorder
from attent_stream.effects.short_lessons import ShortLessons
from attent_stream.effects.token_weights import TokenWeights
from attent_stream.fit.loss_form import LossForm
from attent_stream.fit.run import Run
from attent_stream.fit.scorer import Scorer
from attent_stream.fit.teaching import Teaching
from attent_stream.teach.teacher import Teacher

TARGET = "target"  # what is given up where the stream is like it


class StepTime(Effect):
    """Logs the seconds that teaching took in each batch, and their share of the step.

    Args:
        spent: Measures teaching.
    """

    def __init__(self, spent: Stopwatch) -> None:
        self._spent = spent
        self._began = time.perf_counter()

    def epoch_start(self, state: State, logger: Logger) -> None:
        """Begin with the first batch."""
        self._began = time.perf_counter()

    def batch_end(self, state: State, logger: Logger) -> None:
        """Log, and begin with the next batch."""
        # Without waiting for the GPU: the host would wait for the batch's last forward.
        now, teaching = time.perf_counter(), self._spent.take(wait=False)
        share = teaching / max(now - self._began, 1e-9)
        self._began = now
        logger.log_metrics({"attent/seconds": teaching, "attent/share_of_step": share})


@dataclass(frozen=True, kw_only=True)
class Fit:
    """A fit.

    Args:
        run: What AtteNT does in it.
        loader: The train loader.
        device: Where the model is.
        teacher: Chooses windows.
        scorer: Scores candidates. In a fit that does not, the scorer of the fit before, whose state
            is kept, or None.
        teaching: Scores candidates and asks the teacher.
        recorder: Records the losses of training forwards; None if they are not remembered.
        short: Takes lessons in pieces apart.
        length: Tells the Trainer the lengths of epochs.
        noise: Measures the noise of gradients.
        loss: Form of the loss of padded text; None if it is of no interest.
        tokens: Weights micro-batches by their tokens, or None.
        effects: All that listens to the Trainer's events.
    """

    run: Run
    loader: TeachingDataLoader
    device: Device
    teacher: Teacher
    scorer: Scorer | None
    teaching: Teaching
    recorder: Recorder | None
    short: ShortLessons
    length: PlannedLength
    noise: NoiseScale
    loss: LossForm | None
    tokens: TokenWeights | None
    effects: Effects

    def flush(self) -> None:
        """Put what has been recorded into the ledger; all ranks call this together."""
        if self.recorder is not None:
            self.recorder.flush()

    def random_states(self) -> torch.Tensor:
        """All ranks' random numbers, uint8 of shape (ranks, n)."""
        mine = self.device.tensor_to_device(random_state())
        return torch.from_numpy(gather_ranks(mine, ranks=dist.get_world_size()))

    def given_up(self) -> list[str]:
        """What was found impossible here and nobody had asked for; the same on all ranks."""
        asked, done = self.run.teacher.arrangements.names, self.teacher.arrangements.names
        names = ["pieces"] if "pieces" in asked and "pieces" not in done else []
        if self.recorder is not None and self.recorder.stopped:
            names.append("records")
        if self.run.alike:
            names.append(TARGET)
        return names

    def give_up(self, names: list[str]) -> None:
        """Go on without what a checkpoint's run had given up."""
        if "pieces" in names:
            self.teacher.stop_arranging("pieces")
        if "records" in names and self.recorder is not None:
            self.recorder.stop()

    def state_dict(self) -> dict[str, Any]:
        """The state of teacher, scorer and noise scale, and the lengths that were set."""
        none = {"fidelity": None, "reference": None, "target": None}
        return {
            **self.length.state_dict(),
            "gain": self.teacher.state_dict().get("gain"),
            "given_up": self.given_up(),
            "noise": self.noise.state_dict(),
            "loss": None if self.loss is None else self.loss._asdict(),
            "tokens": None if self.tokens is None else self.tokens.state_dict(),
            **none,
            **({} if self.scorer is None else self.scorer.state_dict()),
        }
