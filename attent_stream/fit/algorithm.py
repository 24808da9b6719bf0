"""``AtteNT``: the Composer algorithm. It listens to events and connects; what is computed stands
elsewhere.
"""

import logging
import time
from collections.abc import Callable, Collection, Mapping
from contextlib import nullcontext
from dataclasses import replace
from functools import partial
from typing import Any

import torch
from composer import Algorithm, Event, Logger, State
from composer.algorithms import CutMix, MixUp
from composer.devices import Device, DeviceGPU
from composer.utils import dist

from attent_stream.arrange.balance import LARGEST
from attent_stream.arrange.pieces import pieces_at
from attent_stream.base.duration import total_span
from attent_stream.base.gather import gather_ranks
from attent_stream.base.randomness import random_state, restore_ranks
from attent_stream.base.schedule import parse_share
from attent_stream.base.span import Clock
from attent_stream.base.stopwatch import Stopwatch
from attent_stream.data.dataloader import TeachingDataLoader
from attent_stream.data.dataset import TeachingDataset
from attent_stream.effects.lesson_weights import LessonWeights
from attent_stream.effects.planned_length import PlannedLength
from attent_stream.effects.recorder import Recorder
from attent_stream.effects.resolution import ProgressiveResolution
from attent_stream.effects.short_lessons import ShortLessons
from attent_stream.experimental.payoff import Payoff
from attent_stream.experimental.skipped_compute import SkippedCompute
from attent_stream.fit.candidate_scorer import CandidateScorer
from attent_stream.fit.clock import single_pass, state_clock
from attent_stream.fit.cutting_faults import cutting_faults
from attent_stream.fit.score_memory import LEAVE, Memory
from attent_stream.fit.settings import parse_settings
from attent_stream.fit.spared_scorer import SparedScorer
from attent_stream.model.batch_form import BatchForm
from attent_stream.model.loss_check import LossCheck
from attent_stream.model.traits import Traits
from attent_stream.score.build import build_scorer
from attent_stream.teach.teacher import AUTO, Teacher
from attent_stream.window.choice import SCORED, Choice
from attent_stream.window.metrics import choice_metrics

VERSION = 3  # of AtteNT's state
_STATE = (
    "version",
    "counts",
    "told",
    "planned",
    "ledger",
    "score",
    "random",
    "gain",
    "reweight",
    "backward",
    "fidelity",
    "reference",
    "given_up",
)

log = logging.getLogger(__name__)


class AtteNT(Algorithm):
    """Nonparametric teaching of attention learners (AtteNT, ICLR 2026), window by window on the
    stream.

    Needs a :class:`TeachingDataLoader` as the Trainer's train loader. At AFTER_DATALOADER it scores
    the candidates read so far, without gradients and in eval mode, and chooses the next window's
    lessons when all are scored. Candidates are transformed, split and counted as the train loader's
    ``DataSpec`` does it with lessons.

    Args:
        keep: Share of a window's rows that become lessons, in (0, 1], or a schedule ``{schedule,
            from, to, over, stages}``. None: 0.5 where ``auto`` sees text again, else 0.7.
        score: ``residual`` (||f(S) - f*(S)||, root mean square over valid tokens; the paper's),
            ``loss``, ``grad_norm``, ``entropy``, ``margin``, ``learnability`` (docs/scores.md), or
            a callable ``(model, batch) -> (B,) tensor``, higher = teach it. ``remembered``: the
            ledger's last training score (``ledger.score``), and no candidate is ever forwarded:
            what is not known is trained on. ``progress``: how fast the training loss of the
            sample's stream falls (``progress.ProgressLedger``), so that each window's quotas of
            streams follow what is being learnt; no forwards either. None: ``loss`` where ``auto``
            sees text again, else ``residual``.
        select: ``auto``: where a causal language model sees samples again, ``soft`` by their
            remembered scores; elsewhere by the design of ``inclusion`` that pays most by
            prediction, and not at all while none pays (``payoff``). Or ``hard`` (top scores),
            ``soft`` (drawn by score) or ``random`` (the control: same counts, no scoring). With
            weights that make up for the choice (``inclusion``): ``prune`` (the easy are dropped at
            random) or ``unbiased`` (in proportion to the score). ``proportional``: in proportion to
            the score, unweighted; what ``auto`` is with ``progress``.
        interval: How long a score is reused when its sample comes again: ``dense``, a time string,
            a linear growth ``{schedule: linear, from, to, over}``, or ``incremental``. ``1ep``:
            fresh in every epoch. None: ``1dur`` with ``auto``, else ``1ep``.
        warmup: Time string; before it everything is trained on.
        anneal: Time string; in the last stretch of this length everything is trained on. None:
            ``0.125dur`` with ``auto`` (InfoBatch's) where it does not see text again, else none.
        temperature: Of ``soft``: towards 0 it is ``hard``, towards infinity ``random``. None: 0.5
            where ``auto`` sees text again, else 1.
        ceiling: Share of a window's highest scores (of each lane) that are taken for noise, and
            taught only where too few others are left; 0.01 to 0.05 against corrupt samples.
        seed: Of every draw.
        reweight: Weight the lessons of each batch by their own training losses (``reweighting``): a
            strategy (``linupper``) or ``{strategy, r}``; None: not so.
        positions: Share of each lesson's positions whose loss is trained on, in (0, 1], drawn anew
            each time (``kept_positions``): a causal language model's output head and its gradient
            are computed there only. All in ``warmup`` and ``anneal``.
        backward: Share of each batch's microbatches that go backward, in (0, 1]: those with the
            largest losses (``kept_backward``). All in ``warmup`` and ``anneal``.
        resolution: Share of the sides of training images, in (0, 1], or a schedule as of ``keep``,
            over all of training (``progressive_resolution``): ``{schedule: linear, from: 0.5, to:
            1, over: 0.8dur}`` begins with small ones. Candidates are scored as they would be
            trained on.
        record: When the training forward's own per-sample scores fill the ledger, at no extra pass:
            ``never``, ``warmup`` (only before ``warmup`` is over) or ``always``. None: with
            ``auto`` where training is longer than an epoch, text always, else one batch in eight
            until their spread promises that teaching pays; never otherwise.
        ledger: What it keeps: ``sample`` (each one's score), ``shard`` or ``stream`` (the mean of
            each), or ``{per, limit, decay, detrend}`` (``LedgerSettings``).
        balance: Order each window's lessons so that its batches are alike in these features, of
            every window but an epoch's first: ``tokens`` (how often each occurs:
            ``scoring.features``), or ``none``. Nothing is dropped or weighted for it; candidates
            are read for it, and no model is asked. None: ``tokens`` where ``auto`` sees packed text
            once, else ``none``.
        seq_len: Share of a text's positions that a lesson has, in (0, 1], or a schedule as of
            ``keep``: each sample of a window is cut into equal pieces (a power of 2 of them, at
            most 16), which are mixed over the window and trained on as samples of their own
            (``teaching.pieces``). A batch has as many tokens as ever, and nothing is dropped. None:
            a quarter for 0.4 of training and a half for as long where ``auto`` sees packed text
            once, else 1. Text is packed where the collate function says so
            (``scoring.pieces.Packed``); that it is seen once is known of a ``max_duration`` in ep,
            ba or sp. ``keep: 1`` asks for plain training: there both are off.
        score_batch: Samples per scoring forward; None: the training microbatch.
        fidelity: How much of a candidate and of the model scoring looks at: ``full``, ``auto`` (the
            cheapest way that agrees with the full score, by measurement), or a mapping of
            ``layers``, ``tokens``, ``resolution``, ``patches``, ``precision`` and ``proxy``; see
            ``scoring.fidelity`` and docs/scoring.md.
        head: How a language model's output head is scored without its logits, a name in
            ``scoring.head.PATHS``; None: not so.
        reference: Of ``learnability``: ``{model: folder}``, or ``{snapshot: 200ba}``
            (``scoring.learnability``).

    Raises:
        ValueError: An argument out of range, a bad name (the good ones are listed).
    """

    def __init__(
        self,
        *,
        keep: float | Mapping[str, Any] | None = None,
        score: str | Callable[[Any, Any], torch.Tensor] | None = None,
        select: str = AUTO,
        interval: str | Mapping[str, Any] | None = None,
        warmup: str = "0ba",
        anneal: str | None = None,
        temperature: float | None = None,
        ceiling: float = 0.0,
        seed: int = 17,
        reweight: str | Mapping[str, Any] | None = None,
        positions: float = 1.0,
        backward: float = 1.0,
        resolution: float | Mapping[str, Any] = 1.0,
        record: str | None = None,
        ledger: str | Mapping[str, Any] | None = None,
        score_batch: int | None = None,
        fidelity: str | Mapping[str, Any] = "full",
        head: str | None = "auto",
        reference: Mapping[str, Any] | None = None,
        balance: str | None = None,
        seq_len: float | Mapping[str, Any] | None = None,
    ) -> None:
        self.settings = parse_settings(
            keep=keep,
            score=score,
            select=select,
            interval=interval,
            warmup=warmup,
            anneal=anneal,
            temperature=temperature,
            ceiling=ceiling,
            seed=seed,
            reweight=reweight,
            positions=positions,
            backward=backward,
            resolution=resolution,
            record=record,
            ledger=ledger,
            score_batch=score_batch,
            fidelity=fidelity,
            head=head,
            reference=reference,
            balance=balance,
            seq_len=seq_len,
        )
        self._events = {
            Event.FIT_START: self._fit_start,
            Event.EPOCH_START: self._epoch_start,
            Event.AFTER_DATALOADER: self._teach,
            Event.BATCH_START: self._batch_read,
            Event.BEFORE_TRAIN_BATCH: self._batch_begins,
            Event.BEFORE_FORWARD: self._forward_begins,
            Event.AFTER_FORWARD: self._forward_done,
            Event.AFTER_LOSS: self._loss_done,
            Event.BATCH_END: self._batch_done,
            Event.FIT_END: self._fit_end,
        }
        self._run = self.settings  # with what is known only where a fit starts
        self._form = BatchForm()
        self.last_choice: Choice | None = None
        self._loader: TeachingDataLoader | None = None
        self._device: Device | None = None
        self._teacher: Teacher | None = None
        # The data set of an earlier fit, which stands where that ended
        self._fitted: TeachingDataset | None = None
        self._left_at: dict[str, Any] | None = None  # its state then
        self._scoring = CandidateScorer(self.settings)
        self._spared = SparedScorer(self._scoring, asked=self.settings.asks_for_scores)
        self._memory = Memory(self.settings.score)
        self._weights = LessonWeights(self.settings.reweight)
        self._skips = SkippedCompute(self.settings.skips, seed)
        self._resolution = ProgressiveResolution(self.settings.resolution)
        self._short = ShortLessons(asked="seq_len" not in self.settings.defaults)
        self._teaching = Stopwatch()
        self._batch_began = time.perf_counter()
        self._length = PlannedLength()
        # A checkpoint's state that this fit has not gone on from yet
        self._resumed: dict[str, Any] | None = None
        self._counts = {"candidates": 0, "lessons": 0, "dropped": 0, "nonfinite": 0, "empty": 0}

    def match(self, event: Event, state: State) -> bool:
        """Whether it does anything at this event."""
        return event in self._events

    def apply(self, event: Event, state: State, logger: Logger) -> None:
        """Do it."""
        self._events[event](state, logger)

    def state_dict(self) -> dict[str, Any]:
        """Counts, the ledger and the ranks' random numbers: plain numbers and tensors. All ranks
        must call it together.
        """
        if self._resumed is not None:
            return self._resumed  # loaded and not gone on from yet
        if self._loader is None:
            return dict.fromkeys(_STATE) | {"version": VERSION, "counts": dict(self._counts)}
        self._memory.flush()
        states = torch.from_numpy(
            gather_ranks(self._device.tensor_to_device(random_state()), ranks=dist.get_world_size())
        )
        return {
            "version": VERSION,
            "counts": dict(self._counts),
            **self._length.state_dict(),
            **self._memory.state_dict(),
            "random": states,
            "gain": self._teacher.payoff.gain,
            "reweight": self._weights.state(),
            "backward": self._skips.state_dict(),
            "given_up": self._given_up(),
            **self._scoring.state_dict(),
        }

    def _given_up(self) -> list[str]:
        """What this run has found that it cannot do, and nobody has asked for: the same on all
        ranks.
        """
        recorder = self._memory.recorder
        found = {
            "scores": self._run.forwards and not self._teacher.forwards,
            "weights": self._teacher.payoff.stopped,
            "pieces": self._run.teacher.seq_len.some and not self._teacher.settings.seq_len.some,
            "records": recorder is not None and recorder.stopped,
        }
        return [name for name, given_up in found.items() if given_up]

    def _give_up(self, names: Collection[str]) -> None:
        """Go on without what a checkpoint's run had given up."""
        if "scores" in names:
            self._teacher.stop_scoring()
        if "weights" in names:
            self._teacher.payoff.stop()
        if "pieces" in names:
            self._teacher.stop_pieces()
        if "records" in names and self._memory.recorder is not None:
            self._memory.recorder.stop()

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Go on from ``state_dict``'s state.

        Raises:
            ValueError: A state of another version.
        """
        if state.get("version") != VERSION:
            raise ValueError(
                f"expected AtteNT's state of version {VERSION}, got version "
                f"{state.get('version')!r}: go on with the package "
                f"that wrote it, or leave its scores and counts behind with {LEAVE}"
            )
        self._counts = {name: int(state["counts"].get(name, 0)) for name in self._counts}
        self._memory.load_state_dict(state)
        self._resumed = state

    def _fit_start(self, state: State, logger: Logger) -> None:
        loader = state.train_dataloader
        if not isinstance(loader, TeachingDataLoader):
            raise TypeError(
                "AtteNT needs a TeachingDataLoader over a TeachingDataset as train_dataloader, "
                f"got {type(loader).__name__}"
            )
        self._loader, self._device = loader, state.device
        self._teaching = Stopwatch(gpu=isinstance(state.device, DeviceGPU))
        resumed, self._resumed = self._resumed, None
        if resumed is None and int(state.timestamp.batch) == 0:
            self._forget()  # another run, perhaps on another corpus
        self._form, self._spared.fault = BatchForm.of(loader), None
        self._short.open()
        self._weights.open(
            state.model, resumed, self._form.rows, asked=self.settings.asks_for_scores
        )
        self._skips.open(state, loader.batch_size, resumed)
        total = total_span(state.max_duration)
        by_default = self.settings.teacher.select == AUTO and "record" in self.settings.defaults
        once = single_pass(total, loader)
        self._run = self.settings.of_run(
            text=Traits.of(state.model).shift_labels,
            once=once,
            packed=loader.packed,
            endless=total is None,
        )
        self._check_cuts(loader)
        self._scoring.open(state, loader, self._run, resumed, self._form)
        self._resolution.open(state.model, self._scoring.models)
        self._find_place(state)
        memory = self._memory
        memory.open(loader.dataset, self._run, single_pass=by_default and once)
        payoff = Payoff(
            cost=self._scoring.cost, gain=None if resumed is None else resumed.get("gain")
        )
        self._teacher = teacher = Teacher(
            self._run.teacher,
            clock=state_clock(state, loader),
            total=total,
            ledger=memory.ledger,
            payoff=payoff,
            forwards=self._run.forwards,
        )
        memory.flush()  # an interrupted fit's
        memory.recorder = None
        if (
            memory.ledger is not None
            and self.settings.record != "never"
            and self._single_samples(state)
        ):
            memory.recorder = Recorder(
                build_scorer(self._run.score, state.model, head=self.settings.head),
                loader,
                teacher,
                check=LossCheck(state.model),
                form=self._form,
                always=self.settings.record == "always",
                thrifty=by_default and self._run.teacher.again is None,
                auto=state.auto_microbatching,
                asked=self.settings.asks_for_records,
            )
        if resumed is not None and not self.settings.asks_for_scores:
            self._give_up(resumed.get("given_up") or ())
        self._weights.tries = teacher.weighs and not self.settings.asks_for_scores
        now, lengths = teacher.clock(0, loader.dataset.coming_epoch, 0.0), self._run.teacher.seq_len
        teacher.keep(now)  # an anneal that cannot be told against max_duration is refused now
        lengths.at(now)  # likewise
        if (
            teacher.scores
            and memory.ledger is None
            and loader.plain_batches <= loader.dataset.window
        ):
            log.warning(
                "Nothing will be taught: the first window of an epoch is kept whole, and a window "
                "of %d rows holds all %d "
                "batches of an epoch (set window to a quarter of them or less).",
                loader.dataset.window,
                loader.plain_batches,
            )
        samples, pieces = loader.dataset.window * loader.dataset.row_size, pieces_at(lengths.least)
        if (
            self._run.teacher.balance is not None
            and samples * pieces > LARGEST
            and dist.get_global_rank() == 0
        ):
            log.warning(
                "Batches are not balanced while a window's %d samples are in pieces more than %d, "
                "of up to %d each.",
                samples,
                LARGEST,
                pieces,
            )
        in_epoch = int(state.timestamp.batch_in_epoch)
        goes_on = resumed is not None and in_epoch > 0
        begun = (
            partial(restore_ranks, resumed["random"])
            if goes_on and resumed["random"] is not None
            else None
        )
        subset = self._length.subset(state, loader)
        # Composer begins to count a user's subset anew when it resumes in the middle of an epoch.
        at_most = subset - in_epoch if subset and in_epoch else None
        loader.attach(teacher, begun=begun, at_most=at_most, strict=self.settings.needs_rows)
        self._length.attach(state, loader)
        self._epoch_start(state, logger)
        if goes_on:
            self._length.resume_epoch(state, resumed)
        self._fitted, self._left_at = loader.dataset, None

    def _check_cuts(self, loader: TeachingDataLoader) -> None:
        """See on a few samples that lessons can be cut and balanced, before any is; on all ranks
        together.

        Raises:
            ValueError: They cannot, and it was asked for.
        """
        given = {"balance", "seq_len"} - self._run.defaults
        faults = cutting_faults(loader, self._run.teacher, given)
        for name in faults.keys() & given:
            raise ValueError(faults[name])
        if faults:
            off = {"balance": None, "seq_len": parse_share(1.0, "seq_len")}
            teacher = replace(self._run.teacher, **{name: off[name] for name in faults})
            self._run = replace(self._run, teacher=teacher)
            if dist.get_global_rank() == 0:
                log.warning(
                    "%s",
                    "; ".join(
                        f"{name} is not used by default here: {fault}"
                        for name, fault in faults.items()
                    ),
                )

    def _single_samples(self, state: State) -> bool:
        """Whether training forwards are of single samples, whose losses can be recorded: not so
        where an algorithm mixes them.

        Raises:
            ValueError: They are not, and recording was asked for.
        """
        mixing = [
            type(one).__name__ for one in state.algorithms if isinstance(one, (MixUp, CutMix))
        ]
        if not mixing:
            return True
        told = f"{mixing[0]} mixes samples, so no training loss is of one of them"
        if self.settings.asks_for_records:
            raise ValueError(
                f"record needs the losses of single samples, and {told}: set record to never, or "
                f"leave {mixing[0]} away"
            )
        if dist.get_global_rank() == 0:
            log.warning("Training losses are not recorded: %s.", told)
        return False

    def _forget(self) -> None:
        self._memory.forget()
        self._scoring.forget()
        self._weights.forget()
        self._skips.forget()
        self._counts = dict.fromkeys(self._counts, 0)

    def _find_place(self, state: State) -> None:
        """See to it that the data set goes on where the run stands, which Composer leaves to us in
        two cases.
        """
        time, dataset = state.timestamp, self._loader.dataset
        if int(time.batch) == 0:
            if self._fitted is not dataset:
                self._loader.forget_peeks()
            return
        if self._fitted is dataset and self._left_at is not None and self._loader.peeked:
            dataset.load_state_dict(self._left_at)
        elif self._fitted is dataset:
            if int(time.batch_in_epoch) > 0:
                dataset.continue_epoch(int(time.sample_in_epoch))
        elif (
            self._fitted is None
            and not dataset.resumes
            and not dataset.return_to_loaded(int(time.sample_in_epoch))
        ):
            log.warning(
                "The checkpoint says nothing of the data: going on behind its %d samples of epoch "
                "%d, as if all of the "
                "epoch's samples had been trained on so far.",
                int(time.sample_in_epoch),
                int(time.epoch),
            )
            dataset.start_at(int(time.epoch), int(time.sample_in_epoch))
        # Composer would else go through the epochs behind, and the batches of this one, to where
        # the data set is.
        state.dataset_resumption["train"] = True

    def _fit_end(self, state: State, logger: Logger) -> None:
        self._left_at = self._loader.dataset.state_dict(int(state.timestamp.sample_in_epoch), True)
        self._loader.attach(None)  # the loader is its owner's again, and plain
        self._length.detach()
        self._resolution.close()

    def _epoch_start(self, state: State, logger: Logger) -> None:
        if self._loader is None:
            return
        self._memory.flush()
        self._length.begin_epoch(state, recorded=self._memory.recorder is not None)
        self._batch_began = time.perf_counter()

    def _teach(self, state: State, logger: Logger) -> None:
        loader = self._loader
        if loader.epoch is None:
            return
        with self._teaching:
            if (
                self.settings.asks_for_scores
                and self._teacher.scores
                and self._run.forwards
                and loader.epoch.pieces == 1
            ):
                self._scoring.try_out(state)
            if loader.epoch.due:
                self._memory.flush()
            choices = loader.teach(partial(self._scores, state), state.device.tensor_to_device)
            if loader.unscored and self._teacher.forwards and not self.settings.asks_for_scores:
                reason = self._spared.fault or "another rank cannot score them"
                self._stop_scoring(
                    "Candidates are not scored, and all samples are trained on", reason
                )
        for choice in choices:
            self._log(choice, logger)
            if choice.decision.by == SCORED:
                # 1 where it was scored to see what teaching would gain
                keep = choice.kept.mean().item()
                found = self._scoring.window_chosen(keep if keep < 1 else 0.5)
                logger.log_metrics(
                    {f"attent/fidelity/{name}": value for name, value in found.items()}
                )
                self._teacher.payoff.cost = self._scoring.cost
        if choices:
            self._scoring.between_windows(self._teacher.clock(0, loader.epoch.order.epoch, 0.0))

    def _scores(self, state: State, candidates: Any) -> torch.Tensor:
        def smaller(batch: Any) -> Any:
            return (
                self._resolution.smaller(state, batch, self._now(state))
                if self._resolution.some
                else batch
            )

        return self._spared(state, candidates, self._loader.batch_size, smaller)

    def _stop_scoring(self, told: str, reason: str) -> None:
        self._teacher.stop_scoring()
        if self._loader.epoch is not None:
            self._loader.epoch.stop_scoring()
        if dist.get_global_rank() == 0:
            log.warning("%s: %s", told, reason)

    def _batch_read(self, state: State, logger: Logger) -> None:
        epoch = self._loader.epoch
        if epoch is not None:
            self._short.begin_batch(state, epoch.pieces, len(epoch.lesson[0]) // epoch.pieces)
        if self._resolution.some:
            now = self._now(state)
            state.batch = self._resolution.smaller(state, state.batch, now)
            logger.log_metrics({"attent/resolution": self._resolution.share(now)})
        if self._scoring.learns_from(int(state.timestamp.batch)):
            with self._teaching:
                self._scoring.learn(state)
        if self.settings.skips.some:
            self._skips.draw(state, teaching=self._teacher.teaching(self._now(state)))

    def _now(self, state: State) -> Clock:
        begun, batches = self._loader.epoch, state.dataloader_len
        share = (
            0.0 if batches is None else min(1.0, int(state.timestamp.batch_in_epoch) / int(batches))
        )
        return self._teacher.clock(
            0, begun.order.epoch if begun else self._loader.dataset.coming_epoch, share
        )

    def _batch_begins(self, state: State, logger: Logger) -> None:
        if self._memory.recorder is not None:
            self._memory.recorder.begin_batch()
        loader = self._loader
        weights = None if loader.epoch is None or loader.fault else loader.epoch.lesson[1]
        self._weights.begin_batch(weights, state.device)
        self._skips.begin_batch(state)

    def _forward_begins(self, state: State, logger: Logger) -> None:
        self._weights.begin_forward()
        self._skips.begin_forward(state)

    def _forward_done(self, state: State, logger: Logger) -> None:
        self._skips.forward_done()

    def _loss_done(self, state: State, logger: Logger) -> None:
        recorder = self._memory.recorder
        if recorder is not None:
            with self._teaching:
                recorder.loss_done(state.model, state.outputs, state.batch, state.loss)
        reading = (None if recorder is None else recorder.reading) or self._scoring.reading
        taught = self._loader.epoch is not None
        # On a GPU a stopwatch is two events
        with self._teaching if self.settings.reweight is not None else nullcontext():
            self._weights.loss_done(
                state.outputs, state.batch, state.loss, reading=reading, taught=taught
            )
        self._skips.loss_done(state)

    def _stop_weights(self, fault: str) -> None:
        """``auto`` draws no lessons by importance where their weights do not work, on any rank."""
        self._teacher.payoff.stop()
        told = (
            "Training goes on plainly, because select: auto would have to weight losses and cannot"
        )
        self._stop_scoring(told, fault)
        if self._memory.recorder is not None and self._run.teacher.again is None:
            self._memory.recorder.stop()

    def _batch_done(self, state: State, logger: Logger) -> None:
        if (
            self._loader.epoch is not None
            and self._short.agreed_fault(self._loader.epoch.pieces) is not None
        ):
            self._teacher.stop_pieces()
            if dist.get_global_rank() == 0:
                log.warning("Lessons are not cut into pieces from the next window on.")
        fault = self._weights.agreed_fault()
        if fault is not None:
            self._stop_weights(fault)
        if self._memory.recorder is not None:
            self._memory.recorder.end_batch()
        if self._loader.epoch is not None:
            self._weights.end_batch(self._loader.batch_size * self._loader.epoch.pieces)
        self._short.end_batch(state)
        # Or the host would wait for the batch's last forward
        now, teaching = time.perf_counter(), self._teaching.take(wait=False)
        share = teaching / max(now - self._batch_began, 1e-9)
        self._batch_began = now
        logger.log_metrics({"attent/seconds": teaching, "attent/share_of_step": share})

    def _log(self, choice: Choice, logger: Logger) -> None:
        metrics, counts = choice_metrics(choice, self._loader.epoch.order.stream_starts)
        if counts["empty"] and not self._counts["empty"] and dist.get_global_rank() == 0:
            log.warning(
                "%d of a window's %d samples have no label at all: there is nothing to learn from "
                "them, so they are the last to be "
                "chosen (attent/empty counts them).",
                counts["empty"],
                choice.window.ids.size,
            )
        for name, count in counts.items():
            self._counts[name] += count
        self.last_choice = choice
        logger.log_metrics({f"attent/{k}": v for k, v in {**metrics, **self._counts}.items()})
