"""What AtteNT's arguments come to in a run: the default of the run for all that was left away."""

import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

from torch import Tensor

from attent_stream.arrange.arrangements import Arrangements
from attent_stream.base.schedule import Phases, parse_interval, parse_share
from attent_stream.base.span import Span
from attent_stream.data.dataset import WINDOW
from attent_stream.fit.scoring import Scoring
from attent_stream.memory.remember import ALWAYS, NEVER, Remember
from attent_stream.score.fidelity import FULL
from attent_stream.score.recipe import AlignedScore, RelativeScore, TargetScore
from attent_stream.score.scores import SCORES, Score
from attent_stream.teach.teacher_settings import TeacherSettings
from attent_stream.window.decision import REMEMBERED
from attent_stream.window.selectors import selector

if TYPE_CHECKING:
    from attent_stream.fit.settings import Settings

ScoreFunction = Callable[[Any, Any], Tensor]


@dataclass(frozen=True, kw_only=True)
class Facts:
    """What is known of a run at its start.

    Args:
        text: The model is a causal language model.
        once: No sample is seen twice.
        passes: Epochs of plain training that the run is as long as; None if not known.
        packed: Samples are text of one length without padding.
        padded: They are text that is padded to the longest sample of a batch.
        trims: They are padded at their end, and micro-batches can be cut to their longest sample.
        alike: The stream is like the target.
        positions: The model learns a vector for each absolute position.
        adapters: Few of the model's weights are trained, as with LoRA.
        in_epochs: The length of training is in epochs.
        even: Samples come in random order, each once an epoch.
    """

    text: bool = False
    once: bool = False
    passes: float | None = None
    packed: bool = False
    padded: bool = False
    trims: bool = False
    alike: bool = False
    positions: bool = False
    adapters: bool = False
    in_epochs: bool = False
    even: bool = True


@dataclass(frozen=True, kw_only=True)
class Run:
    """What AtteNT does in a run.

    Args:
        teacher: How windows are chosen.
        score: Name of a score, or a function.
        scored: Whether candidates are scored.
        remember: What is remembered; ``when`` and ``detrend`` are set.
        scoring: How scores are computed.
        told: What it does, in words.
        window: Rows of a window, where the user does not give them.
        passes: How often the stream is read by a run that chooses toward a target; None if not
            known.
        alike: The stream is like the target, so that nothing is chosen toward it.
    """

    teacher: TeacherSettings
    score: str | ScoreFunction
    scored: bool
    remember: Remember
    scoring: Scoring
    told: str
    window: int = WINDOW
    passes: float | None = None
    alike: bool = False

    @property
    def by_target(self) -> TargetScore | None:
        """The score, if it is read off samples and compared with a target."""
        return _by_target(self.score)

    @property
    def aligns(self) -> bool:
        """Whether the score is the alignment with a target."""
        return isinstance(score_of(self.score), AlignedScore)

    @property
    def relative(self) -> RelativeScore | None:
        """The score, if it is relative to a reference."""
        found = score_of(self.score)
        return found if isinstance(found, RelativeScore) else None


@dataclass(frozen=True, kw_only=True)
class Regime:
    """A kind of run, and the arguments that are taken in it where they are left away.

    Args:
        told: What is done, in words.
        defaults: Value of each argument; ``when`` is that of ``remember``.
        enough: Share of a window's samples that must be remembered to choose it without scoring.
    """

    told: str
    defaults: Mapping[str, Any]
    enough: float = 0.9


_CHOSEN_DEFAULTS: dict[str, Any] = {
    "keep": 0.7,
    "score": "residual",
    "select": "soft",
    "temperature": 1.0,
    "interval": "1ep",
    "anneal": "0ba",
    "when": NEVER,
}
_REMEMBERED_DEFAULTS = _CHOSEN_DEFAULTS | {"score": "loss", "interval": "1dur", "when": ALWAYS}
CHOSEN = Regime(told="samples are chosen", defaults=_CHOSEN_DEFAULTS)
BY_MEMORY = Regime(
    told="samples are chosen by their remembered losses", defaults=_REMEMBERED_DEFAULTS, enough=0.5
)
# What saved where a language model sees its text again (docs/log.md, 2026-11-26, sixth).
AGAIN = Regime(
    told="samples seen again: the harder ones are chosen by their remembered losses",
    defaults=_REMEMBERED_DEFAULTS | {"keep": 0.5, "temperature": 0.5},
)
_TARGET_DEFAULTS = _CHOSEN_DEFAULTS | {"keep": 0.25, "score": "resemblance", "temperature": 0.3}
# What saved where there is a target (docs/log.md, 2026-11-28, third).
TARGET = Regime(told="samples like the target are chosen", defaults=_TARGET_DEFAULTS)
# A sample's likeness hardly changes, so it is not read again to be scored.
TARGET_AGAIN = Regime(told=TARGET.told, defaults=_TARGET_DEFAULTS | {"interval": "1dur"})
PLAIN = Regime(
    told="samples are streamed plainly",
    defaults=_CHOSEN_DEFAULTS | {"keep": 1.0, "select": "random"},
)
# What saved where a language model sees packed text once (docs/log.md, 2026-11-27, second).
ONCE: dict[str, Any] = {
    "pieces": {"schedule": "step", "from": 0.25, "to": 1.0, "over": "0.8dur", "stages": 2},
    "balance": "tokens",
}
# And where it sees packed text again, be the model new or pretrained (2026-11-30, fourth).
OFTEN: dict[str, Any] = {
    "pieces": {"schedule": "step", "from": 0.5, "to": 1.0, "over": "0.5dur", "stages": 1},
    "balance": "tokens",
}
# And where text is padded, so that less is (2026-12-01).
GROUPED: dict[str, Any] = {"group": "length"}
SORTED: dict[str, Any] = {"sort": "length"}
_LARGEST_WINDOW = 256
# It rose to 0.36 and more where the default harmed, and to 0.18 where it saved most (docs/log.md,
# 2026-11-30, fourth).
_MOST_MEMORIZED = 0.2
_ALIKE = "the stream is like the target, so none of it is dropped for that; "
_ADAPTERS = "few of the model's weights are trained, so none of the text is dropped; "
_WORDS = {
    "pieces": "short pieces of samples come first",
    "balance": "batches are balanced",
    "group": "samples of a batch are of similar length",
    "sort": "micro-batches are cut to their longest sample",
}


def run_of(settings: "Settings", facts: Facts) -> Run:
    """What AtteNT does in a run.

    Args:
        settings: AtteNT's arguments.
        facts: What is known of the run.

    Raises:
        ValueError: The arguments cannot be carried out.
    """
    regime, remember = regime_of(settings, facts), settings.remember
    taken = {**regime.defaults, **settings.given}
    keep, select = parse_share(taken["keep"]), selector(taken["select"])
    if not recordable(settings.score):
        taken["when"] = remember.when or NEVER
    arrange = _arrange(settings, facts, regime)
    by_memory = settings.score == REMEMBERED
    # In as many steps, fewer samples are seen more often; in as many epochs there are fewer steps.
    # New samples and those that come again are compared, so they must be of one kind.
    fixed = settings.keep is None and not facts.in_epochs
    guarded = regime is AGAIN and fixed and facts.even and taken["score"] == "loss"
    teacher = TeacherSettings(
        keep=keep,
        select=taken["select"],
        temperature=taken["temperature"],
        interval=parse_interval(taken["interval"]),
        phases=Phases(warmup=Span.parse(settings.warmup), anneal=Span.parse(taken["anneal"])),
        seed=settings.seed,
        ceiling=settings.scoring.ceiling,
        enough=BY_MEMORY.enough if by_memory else regime.enough,
        most_memorized=_MOST_MEMORIZED if guarded else math.inf,
        arrangements=Arrangements.parse(arrange),
        view=_view(taken["score"]) if select.needs_scores else "",
    )
    toward = regime in (TARGET, TARGET_AGAIN)
    detrend = regime is AGAIN if remember.detrend is None else remember.detrend
    return Run(
        teacher=teacher,
        score=remember.score if by_memory else taken["score"],
        scored=select.needs_scores and keep.some and regime not in (AGAIN, BY_MEMORY),
        remember=replace(remember, when=taken["when"], detrend=detrend),
        scoring=settings.scoring,
        window=_window(keep.start) if toward else WINDOW,
        passes=facts.passes / keep.start if toward and facts.passes is not None else None,
        told=_ALIKE * facts.alike
        + _ADAPTERS * (regime is PLAIN and _sees_again(settings, facts))
        + _told(regime if keep.some else PLAIN, taken, arrange, _seen(settings, facts)),
        alike=facts.alike,
    )


def regime_of(settings: "Settings", facts: Facts) -> Regime:
    """The regime of a run."""
    score = settings.score
    of_target = isinstance(score_of(score), (AlignedScore, TargetScore))
    if settings.target is not None and (score is None or of_target) and not facts.alike:
        # An alignment is of the model of its time.
        aligned = isinstance(score_of(score), AlignedScore)
        return TARGET if facts.once or aligned else TARGET_AGAIN
    if _sees_again(settings, facts) and not _leaves_whole(settings, facts):
        return AGAIN
    if score == REMEMBERED:
        return BY_MEMORY
    drops = settings.keep is not None and parse_share(settings.keep).some
    if score or settings.select or drops or settings.scoring.fidelity != FULL:
        return CHOSEN
    return PLAIN


def _sees_again(settings: "Settings", facts: Facts) -> bool:
    """Whether the losses of what is trained on again are remembered, and nothing else chooses."""
    when = settings.remember.when
    # What a language model sees again is remembered unasked.
    remembers = when == ALWAYS or (when is None and facts.text)
    again = not facts.once and remembers
    return again and settings.select is None and recordable(settings.score)


def _leaves_whole(settings: "Settings", facts: Facts) -> bool:
    """Whether nothing is dropped because few weights are trained: with LoRA the choice cost more
    than it gained (docs/log.md, 2026-11-30, sixth). Whoever gives anything of a choice gets one.
    """
    asked = settings.given or settings.score is not None or settings.remember != Remember()
    return facts.adapters and not asked and settings.scoring.fidelity == FULL


def _by_target(score: str | ScoreFunction | None) -> TargetScore | None:
    found = score_of(score)
    return found if isinstance(found, TargetScore) else None


def score_of(score: str | ScoreFunction | None) -> Any:
    """What the name of a score stands for; None for a function and what is no name of one."""
    return SCORES.get(score) if isinstance(score, str) and score != REMEMBERED else None


def _view(score: str | ScoreFunction) -> str:
    found = _by_target(score)
    return "" if found is None else found.view


def recordable(score: str | ScoreFunction | None) -> bool:
    """Whether the outputs of a training forward give a score."""
    if score is None or score == REMEMBERED:
        return True
    found = score_of(score)
    return isinstance(found, Score) and bool(found.outputs)


def _window(keep: float) -> int:
    """Rows of a window with as many lessons as a window of which everything is kept has: what is
    chosen from, mixed and balanced should not be less for being chosen.
    """
    return min(_LARGEST_WINDOW, round(WINDOW / keep))


def _arrange(settings: "Settings", facts: Facts, regime: Regime) -> Mapping[str, Any]:
    """The setting of each arrangement of a run by name."""
    unchosen = settings.select is None or settings.target is not None
    keeps_all = settings.keep is not None and not parse_share(settings.keep).some
    default: dict[str, Any] = {}
    if facts.text and facts.packed and unchosen and not keeps_all:
        default = ONCE if facts.once else OFTEN if regime is AGAIN else {}
    if facts.text and facts.padded and unchosen and not keeps_all:
        default = GROUPED
    if facts.text and facts.trims and not keeps_all:
        default = default | SORTED
    # With pieces, late positions would be learnt in the last fifth of training only
    without = settings.without | ({"pieces"} if facts.positions else set())
    default = {name: value for name, value in default.items() if name not in without}
    if settings.arrange is None:
        return default
    return default | dict(settings.arrange) if settings.joined else settings.arrange


def _seen(settings: "Settings", facts: Facts) -> str:
    """What the text is, where the arrangement follows from it."""
    if settings.arrange is not None:
        return ""
    padded = facts.padded or facts.trims
    return "padded text: " if padded else "packed text seen once: "


def _told(regime: Regime, taken: Mapping[str, Any], arrange: Mapping[str, Any], seen: str) -> str:
    listed = ", ".join(_WORDS.get(name, name) for name in arrange)
    if regime is PLAIN and arrange:
        return f"{seen}nothing is dropped, {listed}"
    if regime is PLAIN:
        return regime.told
    how = {"select": taken["select"], "score": taken["score"], "keep": taken["keep"]}
    if callable(how["score"]):
        how["score"] = "a function"
    if not selector(taken["select"]).needs_scores:
        del how["score"]
    words = ", ".join(f"{name}: {value}" for name, value in how.items())
    return f"{regime.told} ({words})" + (f"; {listed}" if arrange else "")
