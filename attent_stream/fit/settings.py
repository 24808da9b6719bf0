"""AtteNT's arguments, checked together."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from typing import Any

from torch import Tensor

from attent_stream.arrange.features import FEATURES
from attent_stream.arrange.pieces import pieces_at
from attent_stream.base.schedule import Phases, ShareSchedule, parse_interval, parse_share
from attent_stream.base.span import Span
from attent_stream.experimental.learnability import LEARNABILITY, ReferenceSettings
from attent_stream.experimental.reweighting import ReweightSettings
from attent_stream.experimental.skipped_compute import SkippedComputeSettings
from attent_stream.memory.ledger_settings import LedgerSettings
from attent_stream.score.fidelity import FULL, AutoFidelity, Fidelity, parse_fidelity
from attent_stream.score.head import check_head
from attent_stream.score.scores import SCORES
from attent_stream.teach.teacher import AUTO, TeacherSettings
from attent_stream.window.choice import REMEMBERED
from attent_stream.window.selectors import NEEDS_SCORES

PROGRESS = "progress"  # a score: how fast the sample's stream is being learnt
PROPORTIONAL = "proportional"  # the selector that goes with it
RECORDS = ("never", "warmup", "always")
_DEFAULTS = {
    "score": "residual",
    "keep": 0.7,
    "temperature": 1.0,
    "interval": "1ep",
    "anneal": "0ba",
    "record": "never",
}
_AUTO_DEFAULTS = _DEFAULTS | {"interval": "1dur", "anneal": "0.125dur", "record": "always"}
# Of ``auto`` where a language model sees its samples again, which are then remembered without the
# trend (``of_run``): what saved on both tasks of docs/log.md.
_AGAIN = {"select": "soft", "score": "loss", "keep": 0.5, "temperature": 0.5, "anneal": "0ba"}
# Of ``auto`` where packed text is seen once (docs/log.md, 2026-11-27, second).
_ONCE = {
    "balance": "tokens",
    "seq_len": {"schedule": "step", "from": 0.25, "to": 1.0, "over": "0.8dur", "stages": 2},
}
NONE = "none"  # a balance


@dataclass(frozen=True, kw_only=True)
class Settings:
    """What one AtteNT does; see there for what its arguments mean.

    Args:
        teacher: How windows are chosen.
        score: A name in ``SCORES``, ``learnability``, or a callable.
        forwards: Whether candidates may be forwarded to score them.
        record: When training forwards fill the ledger, a name in ``RECORDS``.
        defaults: Arguments whose default depends on more, and that nobody has given.
        ledger: What is remembered.
        progress: Whether it remembers how fast each stream is being learnt instead.
        reweight: How lessons are weighted by their own losses, or None.
        skips: What a batch's training leaves out.
        resolution: Share of the sides of images.
        fidelity: How much of a candidate is looked at.
        head: How the output head is scored.
        reference: Of ``learnability``, else None.
        score_batch: Samples per scoring forward, or None.
    """

    teacher: TeacherSettings
    score: str | Callable[[Any, Any], Tensor]
    forwards: bool
    record: str
    defaults: frozenset[str]
    ledger: LedgerSettings
    progress: bool
    reweight: ReweightSettings | None
    skips: SkippedComputeSettings
    resolution: ShareSchedule
    fidelity: Fidelity | AutoFidelity
    head: str | None
    reference: ReferenceSettings | None
    score_batch: int | None

    @property
    def asks_for_scores(self) -> bool:
        """Whether scores were asked for by name, so that a model without is an error, not a reason
        to stream plainly.
        """
        by_name = "score" not in self.defaults or self.teacher.select in NEEDS_SCORES
        return by_name or self.fidelity != FULL

    @property
    def asks_for_records(self) -> bool:
        """Whether recording was asked for by name, likewise."""
        return self.record != "never" and ("record" not in self.defaults or not self.forwards)

    @property
    def needs_rows(self) -> bool:
        """Whether what was asked for by name needs to know which row of a batch is which sample."""
        return self.asks_for_scores or self.asks_for_records or self.reweight is not None

    @property
    def forwarded_score(self) -> str | Callable[[Any, Any], Tensor]:
        """What a candidate's own forward gives: of ``learnability`` the loss, from which the
        reference's is taken.
        """
        return "loss" if self.reference is not None else self.score

    def of_run(self, *, text: bool, once: bool, packed: bool, endless: bool) -> "Settings":
        """These in a run, with what is known of it only at its start.

        Args:
            text: The model is a causal language model.
            once: It is known to see no sample again.
            packed: Its samples are whole text, without padding.
            endless: No end of training can be seen coming.
        """
        auto = text and self.teacher.select == AUTO
        again = auto and not once and self.record == "always"
        better = _AGAIN if again else {}
        if auto and once and packed and self.teacher.keep.some:
            better = _ONCE
        if endless:
            better = better | {"anneal": "0ba"}
        taken = {key: value for key, value in better.items() if key in self.defaults}
        teacher = replace(self.teacher, again=better.get("select"))
        if "keep" in taken:
            teacher = replace(teacher, keep=parse_share(taken["keep"]))
        if "temperature" in taken:
            teacher = replace(teacher, temperature=taken["temperature"])
        if "anneal" in taken:
            teacher = replace(
                teacher, phases=replace(teacher.phases, anneal=Span.parse(taken["anneal"]))
            )
        if "balance" in taken:
            teacher = replace(teacher, balance=taken["balance"])
        if "seq_len" in taken:
            teacher = replace(teacher, seq_len=parse_share(taken["seq_len"], "seq_len"))
        detrend = again if self.ledger.detrend is None else self.ledger.detrend
        return replace(
            self,
            teacher=teacher,
            score=taken.get("score", self.score),
            ledger=replace(self.ledger, detrend=detrend),
        )


def parse_settings(
    *,
    keep: float | Mapping[str, Any] | None,
    score: str | Callable[[Any, Any], Tensor] | None,
    select: str,
    interval: str | Mapping[str, Any] | None,
    warmup: str,
    anneal: str | None,
    temperature: float | None,
    ceiling: float,
    seed: int,
    reweight: str | Mapping[str, Any] | None,
    positions: float,
    backward: float,
    resolution: float | Mapping[str, Any],
    record: str | None,
    ledger: str | Mapping[str, Any] | None,
    score_batch: int | None,
    fidelity: str | Mapping[str, Any],
    head: str | None,
    reference: Mapping[str, Any] | None,
    balance: str | None,
    seq_len: float | Mapping[str, Any] | None,
) -> Settings:
    """AtteNT's arguments as settings.

    Raises:
        ValueError: One out of range, a bad name (the good ones are listed), or two that contradict
            each other.
    """
    asked = {
        "score": score,
        "keep": keep,
        "temperature": temperature,
        "anneal": anneal,
        "record": record,
        "balance": balance,
        "seq_len": seq_len,
    }
    score = _DEFAULTS["score"] if score is None else score
    remembered = LedgerSettings.parse(ledger)
    forwards = callable(score) or score not in (REMEMBERED, PROGRESS)
    progress = not callable(score) and score == PROGRESS
    if progress:
        if select not in (AUTO, PROPORTIONAL) or remembered.per == "shard":
            raise ValueError(
                f"score={PROGRESS!r} is of whole streams: select must be {PROPORTIONAL!r} and "
                "ledger.per left away, "
                f"got {select!r} and {remembered.per!r}"
            )
        select = PROPORTIONAL
    defaults = _AUTO_DEFAULTS if select == AUTO else _DEFAULTS
    if not forwards:
        if record == "never":
            raise ValueError(f"score={score!r} needs record to be always or warmup, got 'never'")
        defaults = _AUTO_DEFAULTS | {"anneal": defaults["anneal"]}
        score = remembered.score
    if not callable(score) and score not in (LEARNABILITY, *SCORES.names):
        known = sorted([*SCORES.names, LEARNABILITY, PROGRESS, REMEMBERED])
        raise ValueError(f"score must be one of {known} or a callable, got {score!r}")
    if (reference is not None) != (score == LEARNABILITY):
        raise ValueError(
            f"score {LEARNABILITY!r} and reference go together, got score {score!r} and reference "
            f"{reference!r}"
        )
    if balance is not None and balance not in (NONE, *FEATURES):
        raise ValueError(f"balance must be one of {sorted([*FEATURES, NONE])}, got {balance!r}")
    lengths = parse_share(1.0 if seq_len is None else seq_len, "seq_len")
    if lengths.some and pieces_at(lengths.least) == 1:
        raise ValueError(
            "seq_len must be 1, or below 0.7 somewhere to cut samples in two or more, got "
            f"{seq_len!r}"
        )
    teacher = TeacherSettings(
        keep=parse_share(defaults["keep"] if keep is None else keep),
        select=select,
        temperature=defaults["temperature"] if temperature is None else temperature,
        ceiling=ceiling,
        interval=parse_interval(defaults["interval"] if interval is None else interval),
        phases=Phases(
            warmup=Span.parse(warmup),
            anneal=Span.parse(defaults["anneal"] if anneal is None else anneal),
        ),
        seed=seed,
        balance=None if balance == NONE else balance,
        seq_len=lengths,
    )
    if score_batch is not None and score_batch < 1:
        raise ValueError(f"score_batch must be at least 1 sample or None, got {score_batch!r}")
    looks = parse_fidelity(fidelity)
    if callable(score) and looks != FULL:
        raise ValueError(
            "fidelity must be full where score is a callable, which looks at what it likes, got "
            f"{fidelity!r}"
        )
    check_head(head)
    return Settings(
        teacher=teacher,
        score=score,
        forwards=forwards,
        record=_record(record, score, defaults["record"]),
        defaults=frozenset(name for name, value in asked.items() if value is None),
        ledger=remembered,
        progress=progress,
        reweight=None if reweight is None else ReweightSettings.parse(reweight),
        skips=SkippedComputeSettings(positions=positions, backward=backward),
        resolution=parse_share(resolution, "resolution"),
        fidelity=looks,
        head=head,
        reference=None if reference is None else ReferenceSettings.parse(reference),
        score_batch=score_batch,
    )


def _record(record: str | None, score: str | Callable[[Any, Any], Tensor], default: str) -> str:
    recordable = [name for name in SCORES.names if SCORES.get(name).outputs]
    told = not callable(score) and score in recordable
    if record is None:
        return default if told else "never"
    if record not in RECORDS:
        raise ValueError(f"record must be one of {list(RECORDS)}, got {record!r}")
    if record != "never" and not told:
        got = "a callable" if callable(score) else repr(score)
        raise ValueError(
            f"record={record!r} needs a score that the training forward gives ({recordable}), got "
            f"{got}"
        )
    return record
