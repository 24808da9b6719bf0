"""AtteNT's arguments, checked, and what they come to in a run."""

import copy
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from typing import Any

from torch import Tensor

from attent_stream.arrange.arrangements import Arrangements
from attent_stream.base.schedule import Phases, parse_interval, parse_share
from attent_stream.base.span import Span
from attent_stream.fit.scoring import Scoring
from attent_stream.memory.open_ledger import LEDGERS
from attent_stream.memory.remember import ALWAYS, NEVER, Remember
from attent_stream.score.fidelity import FULL
from attent_stream.score.recipe import Recipe, RelativeScore
from attent_stream.score.scores import SCORES, Score
from attent_stream.teach.teacher import TeacherSettings
from attent_stream.window.decision import REMEMBERED
from attent_stream.window.selectors import selector

ScoreFunction = Callable[[Any, Any], Tensor]
NONE = "none"  # no arrangement

# Where the arguments are left away: in a run whose windows are chosen by scores,
_CHOSEN: dict[str, Any] = {
    "keep": 0.7,
    "score": "residual",
    "select": "soft",
    "temperature": 1.0,
    "interval": "1ep",
    "anneal": "0ba",
    "when": NEVER,
}
# in one whose scores are remembered,
_REMEMBERED = _CHOSEN | {"score": "loss", "interval": "1dur", "when": ALWAYS}
# in one of a language model that sees its text again (docs/log.md, 2026-11-26, sixth),
_AGAIN = _REMEMBERED | {"keep": 0.5, "temperature": 0.5}
# and in any other, which streams everything; a language model that sees packed text once is given
# arrangements (docs/log.md, 2026-11-27, second).
_PLAIN = _CHOSEN | {"keep": 1.0, "select": "random"}
_ONCE: dict[str, Any] = {
    "pieces": {"schedule": "step", "from": 0.25, "to": 1.0, "over": "0.8dur", "stages": 2},
    "balance": "tokens",
}


@dataclass(frozen=True, kw_only=True)
class Facts:
    """What is known of a run at its start.

    Args:
        text: The model is a causal language model.
        once: No sample is seen twice.
        packed: Samples are text of one length without padding.
    """

    text: bool = False
    once: bool = False
    packed: bool = False


@dataclass(frozen=True, kw_only=True)
class Run:
    """What AtteNT does in a run.

    Args:
        teacher: How windows are chosen.
        score: Name of a score, or a function.
        forwards: Whether candidates are scored by forwards of their own.
        remember: What is remembered; ``when`` and ``detrend`` are set.
        scoring: How scores are computed.
        told: What it does, in words.
    """

    teacher: TeacherSettings
    score: str | ScoreFunction
    forwards: bool
    remember: Remember
    scoring: Scoring
    told: str

    @property
    def relative(self) -> RelativeScore | None:
        """The score, if it is relative to a reference."""
        found = None if callable(self.score) else SCORES.get(self.score)
        return found if isinstance(found, RelativeScore) else None


@dataclass(frozen=True, kw_only=True)
class Settings:
    """AtteNT's arguments as they were given; None for those that were not.

    Args:
        keep: See ``AtteNT``, as all others.
        score: See there.
        select: See there.
        temperature: See there.
        interval: See there.
        warmup: See there.
        anneal: See there.
        remember: Parsed.
        arrange: Setting of each arrangement by name, without those that are off; None for the
            default of the run.
        scoring: Parsed.
        seed: See there.
        without: Arrangements that the default of the run leaves out.
        joined: Whether ``arrange`` is joined with the default of the run, as its old names were.
        asked: Names of the arguments that were given.

    Raises:
        ValueError: One is out of range, or two contradict each other.
    """

    keep: Any
    score: str | ScoreFunction | None
    select: str | None
    temperature: float | None
    interval: Any
    warmup: str
    anneal: str | None
    remember: Remember
    arrange: Mapping[str, Any] | None
    scoring: Scoring
    seed: int
    without: frozenset[str] = frozenset()
    joined: bool = False
    asked: frozenset[str]

    def __post_init__(self) -> None:
        self._check_score()
        # Whatever the run is, it can be carried out.
        for facts in (Facts(), Facts(text=True), Facts(text=True, once=True, packed=True)):
            self.of_run(facts)

    @property
    def remembers_by_name(self) -> bool:
        """Whether losses that cannot be remembered are an error, as they or their score were asked
        for by name.
        """
        return self.score is not None or self.remember.when not in (None, NEVER)

    @property
    def arranges_by_name(self) -> frozenset[str]:
        """Arrangements that were asked for by name."""
        return frozenset() if self.arrange is None else frozenset(self.arrange)

    def of_run(self, facts: Facts) -> Run:
        """What these come to in a run.

        Raises:
            ValueError: They cannot be carried out.
        """
        remembered = self.score == REMEMBERED
        recordable = self.score is None or remembered or _recordable(self.score)
        when = self.remember.when
        # What a language model sees again is remembered unasked.
        again = self.select is None and not facts.once and recordable
        again = again and (when == ALWAYS or (when is None and facts.text))
        chosen = any(x is not None for x in (self.score, self.select))
        chosen = chosen or self.scoring.fidelity != FULL
        chosen = chosen or (self.keep is not None and parse_share(self.keep).some)
        if again:
            defaults = _AGAIN
            told = "samples seen again: the harder ones are chosen by their remembered losses"
        elif remembered:
            defaults, told = _REMEMBERED, "samples are chosen by their remembered losses"
        elif chosen:
            defaults, told = _CHOSEN, "samples are chosen"
        else:
            defaults = _PLAIN
        taken = defaults | {k: v for k, v in self._given().items() if v is not None}
        score = self.remember.score if remembered else taken["score"]
        select = selector(taken["select"])
        keep = parse_share(taken["keep"])
        if not keep.some:
            told = "samples are streamed plainly"
        once = (
            facts.text
            and facts.once
            and facts.packed
            and self.select is None
            and (self.keep is None or keep.some)
        )
        default = {name: value for name, value in _ONCE.items() if name not in self.without}
        default = default if once else {}
        arrange = self.arrange
        if arrange is None:
            arrange = default
            if arrange and not chosen:
                told = f"packed text seen once: nothing is dropped, {_listed(arrange)}"
        elif self.joined:
            arrange = default | dict(arrange)
        if not recordable:
            taken["when"] = self.remember.when or NEVER
        forwards = select.needs_scores and keep.some and not (again or remembered)
        teacher = TeacherSettings(
            keep=keep,
            select=taken["select"],
            temperature=taken["temperature"],
            interval=parse_interval(taken["interval"]),
            phases=Phases(warmup=Span.parse(self.warmup), anneal=Span.parse(taken["anneal"])),
            seed=self.seed,
            ceiling=self.scoring.ceiling,
            arrangements=Arrangements.parse(arrange),
            **({"enough": 0.5} if remembered else {}),
        )
        detrend = self.remember.detrend
        remember = replace(
            self.remember, when=taken["when"], detrend=again if detrend is None else detrend
        )
        return Run(
            teacher=teacher,
            score=score,
            forwards=forwards,
            remember=remember,
            scoring=self.scoring,
            told=self._told(told, keep.some, taken, arrange),
        )

    def _given(self) -> dict[str, Any]:
        names = ("keep", "select", "temperature", "interval", "anneal")
        given = {name: getattr(self, name) for name in names}
        if self.score != REMEMBERED:
            given["score"] = self.score
        return given | {"when": self.remember.when}

    def _told(
        self, told: str, drops: bool, taken: Mapping[str, Any], arrange: Mapping[str, Any]
    ) -> str:
        if drops:
            name = taken["score"] if isinstance(taken["score"], str) else "a score of your own"
            told += f" (select: {taken['select']}, score: {name}, keep: {taken['keep']})"
        if arrange and "dropped" not in told:
            told += f"; {_listed(arrange)}"
        return told

    def _check_score(self) -> None:
        score, remember = self.score, self.remember
        if remember.per not in LEDGERS:
            LEDGERS.get(remember.per)  # says which names are known
        if score == REMEMBERED:
            if remember.when == NEVER:
                raise ValueError("score 'remembered' needs remember.when, got 'never'")
            score = remember.score
        if score is None:
            return
        found = score if callable(score) else SCORES.get(score)
        if isinstance(found, RelativeScore) != (self.scoring.reference is not None):
            raise ValueError(
                f"score {score!r} and scoring.reference do not go together: a reference is for "
                "scores that are relative to one"
            )
        if isinstance(found, RelativeScore):
            found.parse(self.scoring.reference)
        if not isinstance(found, (Score, RelativeScore)) and self.scoring.fidelity != FULL:
            raise ValueError(
                "scoring.fidelity must be full for a score of your own, as it does its own forwards"
            )
        if remember.when not in (None, NEVER) and not _recordable(score):
            name = score if isinstance(score, str) else "a function"
            raise ValueError(
                f"remember.when={remember.when!r} needs a score of the training forward's own "
                f"outputs, got {name}"
            )


def parse_settings(
    *,
    keep: Any = None,
    score: str | ScoreFunction | None = None,
    select: str | None = None,
    temperature: float | None = None,
    interval: Any = None,
    warmup: str = "0ba",
    anneal: str | None = None,
    remember: str | Mapping[str, Any] | None = None,
    arrange: str | Mapping[str, Any] | None = None,
    scoring: str | Mapping[str, Any] | None = None,
    seed: int = 17,
    without: frozenset[str] = frozenset(),
    joined: bool = False,
) -> Settings:
    """AtteNT's arguments as settings.

    Raises:
        ValueError: One is out of range, a bad name (the good ones are listed), or two contradict
            each other.
    """
    found = SCORES.get(score) if isinstance(score, str) and score != REMEMBERED else None
    if isinstance(found, Recipe):
        recipe = copy.deepcopy(dict(found.settings))
        if select not in (None, recipe.get("select")):
            raise ValueError(
                f"score {score!r} needs select to be {recipe.get('select')!r}, got {select!r}"
            )
        own = {"when": remember} if isinstance(remember, str) else dict(remember or {})
        if own.get("per", recipe["remember"]["per"]) != recipe["remember"]["per"]:
            raise ValueError(
                f"score {score!r} needs remember.per to be left away, got {remember!r}"
            )
        score, select = recipe["score"], recipe["select"]
        remember = recipe["remember"] | own
    given: dict[str, Any] = {
        "keep": keep,
        "score": score,
        "select": select,
        "temperature": temperature,
        "interval": interval,
        "anneal": anneal,
        "remember": remember,
        "arrange": arrange,
        "scoring": scoring,
    }
    return Settings(
        keep=keep,
        score=score,
        select=select,
        temperature=temperature,
        interval=interval,
        warmup=warmup,
        anneal=anneal,
        remember=Remember.parse(remember),
        arrange=_parsed_arrange(arrange),
        scoring=Scoring.parse(scoring),
        seed=seed,
        without=without,
        joined=joined,
        asked=frozenset(name for name, value in given.items() if value is not None),
    )


def _parsed_arrange(arrange: str | Mapping[str, Any] | None) -> dict[str, Any] | None:
    if arrange is None:
        return None
    if arrange == NONE:
        return {}
    if isinstance(arrange, str):
        return {arrange: None}
    if not isinstance(arrange, Mapping):
        raise ValueError(
            f"arrange must be {NONE!r}, a name, or a mapping of arrangements, got {arrange!r}"
        )
    return {name: value for name, value in arrange.items() if value != NONE and value is not False}


def _recordable(score: str | ScoreFunction) -> bool:
    """Whether the outputs of a training forward give this score."""
    found = None if callable(score) or score == REMEMBERED else SCORES.get(score)
    return isinstance(found, Score) and bool(found.outputs)


def _listed(arrange: Mapping[str, Any]) -> str:
    words = {"pieces": "short pieces of samples come first", "balance": "batches are balanced"}
    return ", ".join(words.get(name, name) for name in arrange)
