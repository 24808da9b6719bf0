"""AtteNT's arguments, checked together."""

import copy
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from attent_stream.fit.run import Facts, Run, ScoreFunction, recordable, run_of, score_of
from attent_stream.fit.scoring import Scoring
from attent_stream.fit.target import Target
from attent_stream.memory.open_ledger import LEDGERS
from attent_stream.memory.remember import NEVER, Remember
from attent_stream.score.fidelity import FULL, AutoFidelity
from attent_stream.score.recipe import AlignedScore, Recipe, RelativeScore, TargetScore
from attent_stream.score.scores import SCORES, Score
from attent_stream.window.decision import REMEMBERED

NONE = "none"  # no arrangement


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
        target: Parsed.
        seed: See there.
        without: Arrangements that the default of the run leaves out.
        joined: Whether ``arrange`` is joined with the default of the run, as its old names were.

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
    target: Target | None
    seed: int
    without: frozenset[str] = frozenset()
    joined: bool = False

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

    @property
    def given(self) -> dict[str, Any]:
        """The arguments that were given and have a default of the run; ``when`` is that of
        ``remember``.
        """
        names = ("keep", "select", "temperature", "interval", "anneal")
        given = {name: getattr(self, name) for name in names} | {"when": self.remember.when}
        if self.score != REMEMBERED:
            given["score"] = self.score
        return {name: value for name, value in given.items() if value is not None}

    @property
    def leaves_the_choice(self) -> bool:
        """Whether it is left to the run how it chooses toward the target, and how much."""
        given = (self.score, self.select, self.keep)
        return self.target is not None and not any(one is not None for one in given)

    def of_run(self, facts: Facts) -> Run:
        """What these come to in a run; see ``run_of``."""
        return run_of(self, facts)

    def _check_score(self) -> None:
        score, remember = self.score, self.remember
        if remember.per not in LEDGERS:
            LEDGERS.get(remember.per)  # says which names are known
        toward = self.target is not None and score is None
        of_target = toward or isinstance(score_of(score), (AlignedScore, TargetScore))
        if of_target and remember.when not in (None, NEVER):
            raise ValueError(
                f"remember={remember.when!r} is for losses of training forwards, and samples are "
                f"chosen by a target: leave remember away, or set score to 'loss'"
            )
        if isinstance(score_of(remember.score), (AlignedScore, TargetScore)):
            raise ValueError(
                f"remember.score must be of a training forward, got {remember.score!r}"
            )
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
        if isinstance(found, (AlignedScore, TargetScore)) and self.target is None:
            raise ValueError(
                f"score {score!r} needs a target: set target to a data set that says what the "
                "model should be good at"
            )
        if isinstance(found, TargetScore) and self.scoring.fidelity != FULL:
            raise ValueError(
                f"scoring.fidelity must be full for score {score!r}, as no model scores"
            )
        if isinstance(found, AlignedScore) and isinstance(self.scoring.fidelity, AutoFidelity):
            raise ValueError(
                f"scoring.fidelity must not be auto for score {score!r}: name what is looked at, "
                "such as {layers: 2, tokens: {share: 0.25}}"
            )
        by_model = isinstance(found, (AlignedScore, Score, RelativeScore))
        if not by_model and self.scoring.fidelity != FULL:
            raise ValueError(
                "scoring.fidelity must be full for a score of your own, as it does its own forwards"
            )
        if remember.when not in (None, NEVER) and not recordable(score):
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
    target: Any = None,
    seed: int = 17,
    without: frozenset[str] = frozenset(),
    joined: bool = False,
) -> Settings:
    """AtteNT's arguments as settings.

    Raises:
        ValueError: One is out of range, a bad name (the good ones are listed), or two contradict
            each other.
    """
    found = score_of(score)
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
        target=Target.parse(target),
        seed=seed,
        without=without,
        joined=joined,
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
