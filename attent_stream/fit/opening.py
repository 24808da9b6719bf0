"""How a fit is built when it starts."""

import logging
from dataclasses import replace
from functools import partial
from typing import Any

from composer import State
from composer.algorithms import CutMix, MixUp
from composer.devices import DeviceGPU
from composer.utils import dist
from torch.nn import Module

from attent_stream.base.duration import total_span
from attent_stream.base.randomness import restore_ranks
from attent_stream.base.registry import imported
from attent_stream.base.stopwatch import Stopwatch
from attent_stream.data.dataloader import TeachingDataLoader
from attent_stream.data.first_features import open_first_features
from attent_stream.effects.effect import Effects
from attent_stream.effects.lesson_weights import LessonWeights
from attent_stream.effects.noise_scale import NoiseScale
from attent_stream.effects.planned_length import PlannedLength
from attent_stream.effects.recorder import Recorder
from attent_stream.effects.short_lessons import ShortLessons
from attent_stream.effects.target_loss import TargetLoss
from attent_stream.effects.token_weights import TokenWeights
from attent_stream.effects.trimmed import Trimmed
from attent_stream.effects.weighting import WeightedOutputs
from attent_stream.fit.arrange_faults import Padding, padding, with_what_can_be_arranged
from attent_stream.fit.candidate_scorer import PreparesCandidates, open_scorer
from attent_stream.fit.clock import passes, single_pass, state_clock
from attent_stream.fit.fit import TARGET, Fit, StepTime
from attent_stream.fit.loss_form import LossForm
from attent_stream.fit.open_target import open_target_scorer, read_target
from attent_stream.fit.padded_loss import loss_form_of
from attent_stream.fit.run import Facts, Run
from attent_stream.fit.score_memory import ScoreMemory
from attent_stream.fit.scorer import Scorer, known_state
from attent_stream.fit.settings import Settings
from attent_stream.fit.target_scorer import TargetScorer
from attent_stream.fit.teaching import Teaching
from attent_stream.memory.remember import ALWAYS, NEVER
from attent_stream.model.batch_form import BatchForm
from attent_stream.model.loss_check import LossCheck
from attent_stream.model.reading import Reading
from attent_stream.model.traits import Traits, learns_positions, weights_trained
from attent_stream.model.wrapping import is_compiled
from attent_stream.score.build import build_scorer
from attent_stream.teach.teacher import Teacher

_FEW = 0.1  # share of a model's weights: LoRA trains a few hundredths
_MORE = 1.05  # passes over the stream that are told of

log = logging.getLogger(__name__)


def open_fit(
    settings: Settings,
    state: State,
    loader: TeachingDataLoader,
    *,
    memory: ScoreMemory,
    scorer_before: Scorer | None,
    counts: dict[str, int],
    told: int | None,
    resumed: dict[str, Any] | None,
) -> Fit:
    """Build a fit; all ranks call this together.

    Args:
        settings: AtteNT's.
        state: The Trainer's.
        loader: The train loader.
        memory: The run's ledger.
        scorer_before: The scorer of the fit before, or None.
        counts: The run's counts.
        told: Length of the epoch that the Trainer was told in the fit before, or None.
        resumed: AtteNT's state of a checkpoint to go on from, or None.

    Raises:
        AttentError: The settings cannot be carried out with this model or data set.
        ValueError: The settings cannot be carried out, or the checkpoint is of others.
    """
    total = total_span(state.max_duration)
    length = passes(total, loader)
    traits = Traits.of(state.model)
    text, asked = traits.shift_labels, settings.arranges_by_name
    form, spent = BatchForm.of(loader), Stopwatch(gpu=isinstance(state.device, DeviceGPU))
    padded = padding(loader) if text else Padding()
    loss: LossForm | None = None
    if any(padded) or asked & {"group", "sort"}:
        loss = loss_form_of(state, loader, form, resumed)
    if "sort" in asked and loss is not None and (loss.uneven or loss.uncut):
        raise ValueError(
            "arrange.sort needs a model whose loss is the mean over predicted tokens and takes "
            f"fewer positions: {loss.uneven or loss.uncut}"
        )
    if "sort" in asked and not form.splits_in_order:
        raise ValueError("arrange.sort needs Composer's default split_batch, got another one")
    facts = Facts(
        text=text,
        passes=length,
        once=single_pass(length, loader),
        packed=loader.packed,
        padded=padded.longest,
        trims=padded.end
        and loss == LossForm("", "")
        and form.splits_in_order
        # A compiled model would be compiled anew for each width that it has not seen
        and (padded.longest or not is_compiled(state.model)),
        alike=resumed is not None and TARGET in (resumed.get("given_up") or []),
        positions=learns_positions(state.model),
        adapters=_trains_few(state.model),
        in_epochs=total is not None and total.unit == "ep",
        even=bool(loader.dataset.shuffle) and not loader.dataset.repeats,
    )
    run = settings.of_run(facts)
    scorer: Scorer | None = None
    target = None if settings.target is None else read_target(settings.target, state, loader)
    if run.scored and run.by_target is not None and target is not None:
        known = known_state(resumed, scorer_before)
        look = settings.leaves_the_choice and resumed is None
        scorer = open_target_scorer(target, run.by_target, loader, state, known, spent, look=look)
        if scorer is None:
            run = settings.of_run(replace(facts, alike=True))
    run = with_what_can_be_arranged(run, loader, asked)
    loader.widen(run.window)
    if run.scored and scorer is None:
        scorer = open_scorer(
            state, loader, run, form, target=target, resumed=resumed, before=scorer_before
        )
        for algorithm in state.algorithms:
            if isinstance(algorithm, PreparesCandidates):
                algorithm.prepare_models(list(scorer.models))
    ledger = memory.open(loader.dataset, run)
    teacher = _teacher(run)(
        run.teacher,
        clock=state_clock(state, loader),
        total=total,
        ledger=ledger,
        scoring=run.scored,
        first=scorer.first if isinstance(scorer, TargetScorer) else None,
        first_features=open_first_features(loader, state.device.tensor_to_device),
    )
    if scorer is not None:
        teacher.scoring_costs(scorer.cost)
    records = ledger is not None and run.remember.when != NEVER
    recorder = None
    if records and _single_samples(state, asked=settings.remembers_by_name):
        recorder = Recorder(
            build_scorer(run.score, state.model, head=run.scoring.head),
            loader,
            teacher,
            check=LossCheck(state.model),
            form=form,
            always=run.remember.when == ALWAYS,
            auto=state.auto_microbatching,
            asked=settings.remembers_by_name,
            spent=spent,
        )

    kept = scorer or scorer_before

    def reading() -> Reading | None:
        readings = (one.reading for one in (recorder, kept) if one is not None)
        return next((found for found in readings if found is not None), None)

    teaching = Teaching(
        loader,
        teacher,
        scorer,
        counts=counts,
        flush=(lambda: None) if recorder is None else recorder.flush,
        spent=spent,
    )
    short = ShortLessons(loader, teacher, asked="pieces" in asked)
    weights = LessonWeights(loader, WeightedOutputs(state.model, form.rows), reading)
    length = PlannedLength(loader, told, recorded=recorder is not None)
    shown = None
    if target is not None:
        shown = TargetLoss(
            target.held, target.held_samples, form=form, dataset=loader.dataset, spent=spent
        )
    arranged = set(run.teacher.arrangements.names)
    tokens = None
    if loss is not None and not loss.uneven and arranged & {"group", "sort"}:
        tokens = TokenWeights(loader, form, batches="group" in arranged)
    trimmed = Trimmed(loader, form) if "sort" in arranged else None
    noise = NoiseScale(form, spent, at_random=lambda: trimmed is None or not trimmed.sorts)
    effects = [
        tokens,
        trimmed,
        noise,
        recorder,
        length,
        teaching,
        short,
        weights,
        shown,
        StepTime(spent),
    ]
    fit = Fit(
        run=run,
        loader=loader,
        device=state.device,
        teacher=teacher,
        scorer=kept,
        teaching=teaching,
        recorder=recorder,
        short=short,
        length=length,
        noise=noise,
        loss=loss,
        tokens=tokens,
        effects=Effects([effect for effect in effects if effect is not None]),
    )
    if resumed is not None:
        teacher.load_state_dict(resumed)
        noise.load_state_dict(resumed.get("noise"))
        if tokens is not None:
            tokens.load_state_dict(resumed.get("tokens"))
        fit.give_up(resumed.get("given_up") or [])
    _check_times(teacher, loader)
    return fit


def attach(fit: Fit, state: State, settings: Settings, resumed: dict[str, Any] | None) -> None:
    """Let a fit's teacher choose from the next epoch on."""
    loader, in_epoch = fit.loader, int(state.timestamp.batch_in_epoch)
    random = resumed["random"] if resumed is not None and in_epoch > 0 else None
    subset = fit.length.subset(state)
    loader.attach(
        fit.teacher,
        begun=None if random is None else partial(restore_ranks, random),
        # Composer counts a user's subset anew when it resumes in the middle of an epoch.
        at_most=subset - in_epoch if subset and in_epoch else None,
        strict=fit.run.scored or settings.remembers_by_name,
    )
    fit.length.attach(state)


def warn(fit: Fit) -> None:
    """Tell what the fit does, and what of it will have no effect."""
    if dist.get_global_rank() != 0:
        return
    loader, teacher = fit.loader, fit.teacher
    log.info("AtteNT: %s.", fit.run.told)
    window = loader.dataset.window
    never_taught = teacher.uses_scores and teacher.ledger is None and teacher.first is None
    if never_taught and loader.plain_batches <= window:
        log.warning(
            "Nothing will be taught: the first window of an epoch is kept whole, and a window of "
            "%d rows holds all %d batches of an epoch (set window to a quarter of them or less).",
            window,
            loader.plain_batches,
        )
    if fit.run.passes is not None and fit.run.passes > _MORE:
        log.info(
            "The stream will be read about %.1f times, and nearly the same samples chosen each "
            "time: keep: %.2f would read it once.",
            fit.run.passes,
            min(1.0, fit.run.passes * teacher.settings.keep.start),
        )
    samples, arrangements = window * loader.dataset.row_size, teacher.arrangements
    largest = arrangements.largest
    if largest is not None and samples * arrangements.most_units > largest:
        log.warning(
            "Batches are not balanced while a window has more than %d samples, or pieces of them: "
            "its %d rows have %d samples, in up to %d pieces each.",
            largest,
            window,
            samples,
            arrangements.most_units,
        )


def _trains_few(model: Module) -> bool:
    """Whether few of the model's weights are trained; all ranks call it together, as each may have
    a part of them.
    """
    trained, every = zip(*dist.all_gather_object(weights_trained(model)), strict=True)
    return 0 < sum(trained) < _FEW * sum(every)


def _teacher(run: Run) -> type[Teacher]:
    path = run.teacher.chosen.teacher
    return Teacher if path is None else imported(path, "select")


def _single_samples(state: State, *, asked: bool) -> bool:
    """Whether training forwards are of single samples, so that their losses can be remembered.

    Raises:
        ValueError: An algorithm mixes samples, and remembering was asked for.
    """
    mixing = [type(one).__name__ for one in state.algorithms if isinstance(one, (MixUp, CutMix))]
    if not mixing:
        return True
    told = f"{mixing[0]} mixes samples, so no training loss is of one of them"
    if asked:
        raise ValueError(
            f"remember needs the losses of single samples, and {told}: set remember to never, or "
            f"leave {mixing[0]} away"
        )
    if dist.get_global_rank() == 0:
        log.warning("Training losses are not remembered: %s.", told)
    return False


def _check_times(teacher: Teacher, loader: TeachingDataLoader) -> None:
    """Refuse now what cannot be told against ``max_duration``, such as an anneal."""
    now = teacher.clock(0, loader.dataset.coming_epoch, 0.0)
    teacher.keep(now)
