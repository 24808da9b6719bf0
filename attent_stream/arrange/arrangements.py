"""Arrangements by name, and those of a run, applied one after the other."""

import json
import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from attent_stream.arrange.arrangement import Arrangement, Selected
from attent_stream.arrange.balance import Balance
from attent_stream.arrange.group import Group
from attent_stream.arrange.pieces import Pieces
from attent_stream.arrange.sort import Sort
from attent_stream.base.gather import ALONE, RankGroup, Steps, summed
from attent_stream.base.registry import Registry
from attent_stream.base.span import Clock
from attent_stream.window.choice import Choice, Window
from attent_stream.window.decision import Decision

ARRANGEMENTS: Registry[type[Arrangement]] = Registry(
    "arrange", {"pieces": Pieces, "balance": Balance, "group": Group, "sort": Sort}
)
MOST = 8  # arrangements of a run


@dataclass(frozen=True, kw_only=True)
class Entry:
    """An arrangement of a run.

    Args:
        name: Name in ``ARRANGEMENTS``.
        value: Its setting as given, of JSON's types.
        made: The arrangement.
        on: Whether new windows are arranged by it; else only those of a checkpoint are.
    """

    name: str
    value: Any
    made: Arrangement
    on: bool = True


@dataclass(frozen=True, kw_only=True)
class Arrangements:
    """The arrangements of a run, in the order in which they are applied.

    Args:
        entries: At most ``MOST``, and at most one that reads features.
    """

    entries: tuple[Entry, ...] = ()

    @classmethod
    def parse(cls, settings: Mapping[str, Any]) -> "Arrangements":
        """From the setting of each arrangement by name.

        Raises:
            ValueError: An unknown name, a bad setting, too many, or two that read features.
        """
        entries = []
        for name, value in settings.items():
            made = ARRANGEMENTS.get(name)
            if not (isinstance(made, type) and issubclass(made, Arrangement)):
                raise ValueError(f"arrange: {name!r} must be a class derived from Arrangement")
            entries.append(Entry(name=name, value=value, made=_parsed(made, name, value)))
        reading = [entry.name for entry in entries if entry.made.reads]
        if len(reading) > 1:
            raise ValueError(f"arrange takes one arrangement that reads features, got {reading}")
        if len(entries) > MOST:
            raise ValueError(f"arrange takes at most {MOST} arrangements, got {len(entries)}")
        return cls(entries=tuple(sorted(entries, key=lambda entry: not entry.made.cuts)))

    @classmethod
    def load(cls, text: str) -> "Arrangements":
        """From ``dump``'s text, which this process or its parent wrote."""
        return cls.parse(dict(json.loads(text)))

    def of_checkpoint(self, text: str) -> "Arrangements":
        """These, joined by those of ``dump``'s text from a checkpoint. What a checkpoint names is
        only imported if it is registered here.

        Raises:
            ValueError: A bad text, or an arrangement that is neither one of these nor registered.
        """
        try:
            pairs = json.loads(text)
        except (RecursionError, TypeError) as error:
            raise ValueError(f"expected settings as JSON, got {text!r:.80}") from error
        if not isinstance(pairs, list) or not all(_is_entry(pair) for pair in pairs):
            raise ValueError(f"expected names and settings of arrangements, got {text!r:.80}")
        known = {entry.name for entry in self.entries}
        others = {name: value for name, value in pairs if name not in known}
        for name, value in others.items():
            # A name with a colon, here or within a setting, would be imported.
            if name not in ARRANGEMENTS or ":" in json.dumps(value, separators=(",", "=")):
                raise ValueError(
                    f"the checkpoint's windows were arranged by {name!r}: add it to arrange, as in "
                    "the run that wrote the checkpoint"
                )
        return self.joined(self.parse(others))

    def dump(self) -> str:
        """Names and settings as JSON: all that a loader worker or a checkpoint needs."""
        return json.dumps([[entry.name, entry.value] for entry in self.entries])

    @property
    def foreseeable(self) -> bool:
        """Whether all decide by a window's shape and place, without its samples."""
        return all(entry.made.foreseeable for entry in self.entries)

    @property
    def reads(self) -> bool:
        """Whether candidates of new windows are read for their features."""
        return any(entry.made.reads for entry in self.entries if entry.on)

    @property
    def most_units(self) -> int:
        """Most pieces that a sample of a new window is cut into."""
        return math.prod(entry.made.most_units for entry in self.entries if entry.on)

    @property
    def largest(self) -> int | None:
        """Units of the largest new window that all of them arrange; None for any."""
        given = [entry.made.largest for entry in self.entries if entry.on]
        return min((largest for largest in given if largest is not None), default=None)

    @property
    def names(self) -> list[str]:
        """Names of those that arrange new windows."""
        return [entry.name for entry in self.entries if entry.on]

    def without(self, *names: str) -> "Arrangements":
        """These, where those named arrange no new windows."""
        return replace(
            self,
            entries=tuple(
                replace(entry, on=False) if entry.name in names else entry for entry in self.entries
            ),
        )

    def joined(self, others: "Arrangements") -> "Arrangements":
        """These, and those others that are not among them, which arrange no new windows."""
        known = {entry.name for entry in self.entries}
        more = [replace(entry, on=False) for entry in others.entries if entry.name not in known]
        every = sorted([*self.entries, *more], key=lambda entry: not entry.made.cuts)
        return replace(self, entries=tuple(every))

    def decided(
        self, decision: Decision, window: Window, end: Clock, *, reads_first: bool = False
    ) -> Decision:
        """A decision with the notes of each arrangement for a window.

        Args:
            decision: How it will be chosen.
            window: The window.
            end: When it ends.
            reads_first: Whether an epoch's first window can be read before training.
        """
        notes, units = [], 1
        for entry in self.entries:
            largest = entry.made.largest
            fits = largest is None or window.ids.size * units <= largest
            if window.index == 0 and entry.made.reads:
                fits = fits and reads_first and entry.made.reads_first
            note = entry.made.decide(window, end, units) if entry.on and fits else 0
            if note:
                notes.append((entry.name, note))
                units *= entry.made.units(note)
        return self.noted(decision, notes)

    def noted(self, decision: Decision, notes: Iterable[tuple[str, int]]) -> Decision:
        """A decision with these notes."""
        notes, units, features = tuple(notes), 1, False
        for entry, note in self._noted(notes):
            units *= entry.made.units(note)
            features = features or entry.made.reads
        return replace(decision, notes=notes, units=units, features=features)

    def kept(self, decision: Decision) -> Decision:
        """A decision without the notes of arrangements that arrange no new windows. Where one of
        these would have cut samples, no note is left.
        """
        gone = [entry for entry, _ in self._noted(decision.notes) if not entry.on]
        cuts = any(entry.made.cuts for entry in gone)
        names = {entry.name for entry in gone}
        notes = [note for note in decision.notes if not cuts and note[0] not in names]
        return self.noted(decision, notes)

    def arranged(
        self,
        choice: Choice,
        features: NDArray[np.float16] | None,
        seed: int,
        group: RankGroup = ALONE,
    ) -> Choice:
        """Arrange the lessons of a choice of whole samples.

        Args:
            choice: Chosen without arrangements: its places count whole candidates.
            features: Features of the candidates in ``slots``, shape (C, len(slots), units * d), if
                its decision needs them and they are known.
            seed: Seeds the random numbers, with the epoch, the window and the note.
            group: Ranks that share the work; they call this together.
        """
        return summed(self.arranging(choice, features, seed, group), group)

    def in_steps(self, decision: Decision) -> bool:
        """Whether a thread may run ``arranging``."""
        return all(entry.made.in_steps for entry, _ in self._noted(decision.notes))

    def arranging(
        self, choice: Choice, features: NDArray[np.float16] | None, seed: int, group: RankGroup
    ) -> Steps[Choice]:
        """``arranged`` in steps."""
        window, decision = choice.window, choice.decision
        if not decision.notes:
            return choice
        places, units, metrics = choice.places, 1, dict(choice.metrics)
        for entry, note in self._noted(decision.notes):
            known = None
            if entry.made.reads and features is not None:
                known = features.reshape(len(features), features.shape[1] * units, -1)
            rng = np.random.default_rng([seed, window.epoch, window.index, note])
            selected = Selected(
                window=window, places=places, units=units, features=known, rng=rng, group=group
            )
            places, more = yield from entry.made.arranging(selected, note)
            units *= entry.made.units(note)
            metrics |= more
        weights = np.ones(window.ids.size, np.float32)
        weights[choice.places] = choice.weights
        return replace(choice, places=places, weights=weights[places // units], metrics=metrics)

    def slots(
        self, window: Window, decision: Decision, group: RankGroup
    ) -> NDArray[np.int64] | None:
        """Slots of a row whose features a rank needs, ascending; None for all."""
        return self._reading(decision).slots(window, decision.units, group)

    def features(self, batch: Any, decision: Decision) -> NDArray[np.float16]:
        """Features of a collated batch of whole candidates, float16 of shape (B, units * d)."""
        return self._reading(decision).features(batch, decision.units).numpy()

    def _reading(self, decision: Decision) -> Arrangement:
        return next(entry.made for entry, _ in self._noted(decision.notes) if entry.made.reads)

    def lesson(self, batch: Any, pieces: Sequence[int], decision: Decision) -> Any:
        """What becomes of a collated batch of lessons."""
        for entry, note in self._noted(decision.notes):
            batch = entry.made.lesson(batch, pieces, note)
        return batch

    def vector(self, decision: Decision) -> list[int]:
        """A decision's note for each entry, 0 where it has none; see ``from_vector``."""
        known = dict(decision.notes)
        return [known.get(entry.name, 0) for entry in self.entries]

    def from_vector(self, by: str, vector: Sequence[int]) -> Decision:
        """A decision, as far as a loader worker needs it. A longer vector ends with zeros."""
        notes = [(e.name, note) for e, note in zip(self.entries, vector, strict=False) if note]
        return self.noted(Decision(by=by, lessons=0), notes)

    def _noted(self, notes: Iterable[tuple[str, int]]) -> list[tuple[Entry, int]]:
        known = dict(notes)
        return [(entry, known[entry.name]) for entry in self.entries if entry.name in known]


def _is_entry(pair: Any) -> bool:
    return isinstance(pair, list) and len(pair) == 2 and isinstance(pair[0], str)


def _parsed(made: type[Arrangement], name: str, value: Any) -> Arrangement:
    try:
        json.dumps(value)
        return made.parse(value)
    except TypeError as error:
        raise ValueError(
            f"arrange.{name} must be of plain values, got {value!r}: {error}"
        ) from error
