"""``AtteNT``: the Composer algorithm. It passes the Trainer's events on to a fit's parts."""

from collections.abc import Mapping, Sequence
from typing import Any

from composer import Algorithm, Event, State
from composer.loggers import Logger
from typing_extensions import Unpack

from attent_stream.data.dataloader import TeachingDataLoader
from attent_stream.data.dataset import TeachingDataset
from attent_stream.fit.fit import Fit
from attent_stream.fit.old_names import OldNames, renamed
from attent_stream.fit.opening import attach, open_fit, warn
from attent_stream.fit.place import find_place
from attent_stream.fit.run import ScoreFunction
from attent_stream.fit.score_memory import LEAVE, ScoreMemory
from attent_stream.fit.scorer import Scorer
from attent_stream.fit.settings import parse_settings
from attent_stream.fit.teaching import Listener
from attent_stream.window.choice import Choice

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
    "fidelity",
    "reference",
    "target",
    "given_up",
    "noise",
    "loss",
    "tokens",
)
_ALWAYS = frozenset({Event.INIT, Event.FIT_START})


class AtteNT(Algorithm):
    """Nonparametric teaching of attention learners (AtteNT, ICLR 2026), window by window on the
    stream.

    It needs a ``TeachingDataLoader`` as the Trainer's train loader. Each argument that is left
    away takes the default of the run, which one log line tells when a fit starts: packed text is
    cut into short pieces first and balanced; text that is seen again is chosen by its remembered
    losses, unless few weights are trained (LoRA); batches of padded text are of samples of similar
    length; everything else is streamed plainly.

    Args:
        keep: Share of a window's rows that become lessons, in (0, 1], or a schedule ``{schedule,
            from, to, over, stages}``.
        score: How important a sample is: ``residual`` (the paper's), ``loss``, ``grad_norm``,
            ``remembered``, a name on trial (docs/scores.md), ``package.module:function``, or a
            function ``(model, batch) -> (B,) tensor``, higher = teach it. ``remembered`` is the
            score of the last training forward: no candidate is forwarded, and what is not known is
            trained on.
        select: Which candidates of a window become lessons: ``hard`` (highest scores), ``soft``
            (drawn by score), ``random`` (the control: no scores), a name on trial, or
            ``package.module:function``.
        temperature: Temperature of ``soft``: near 0 it is ``hard``, at infinity ``random``.
        interval: How long a score is reused when its sample comes again: ``dense``, a time string,
            ``{schedule: linear, from, to, over}``, or ``incremental``. ``1ep``: every epoch anew.
        warmup: Time string. Before it everything is trained on.
        anneal: Time string. In the last stretch of this length everything is trained on.
        remember: Whether the losses of training forwards are remembered, at no extra pass:
            ``never``, ``warmup``, ``always``, or a mapping (``Remember``).
        arrange: What becomes of selected samples: ``none``, or a mapping of arrangements:
            ``pieces`` (a share or schedule of their length), ``balance`` (``tokens``), ``group``
            and ``sort`` (``length``).
        scoring: How scores are computed: a mapping (``Scoring``).
        target: A small data set that says what the model should be good at: a path, a mapping
            ``{remote, local, split, weight}`` (``TargetStream``), or a list of these. By default,
            and with the scores ``resemblance`` and ``alignment``, samples are chosen by it. With
            any other ``score``, only its loss is logged.
        seed: Seed of every draw.
        **old: Names of before 0.2, which are taken for one release (``old_names``).

    Raises:
        ValueError: An argument out of range, or a bad name (the good ones are listed).
        TypeError: An unknown argument.
    """

    def __init__(
        self,
        *,
        keep: float | Mapping[str, Any] | None = None,
        score: str | ScoreFunction | None = None,
        select: str | None = None,
        temperature: float | None = None,
        interval: str | Mapping[str, Any] | None = None,
        warmup: str = "0ba",
        anneal: str | None = None,
        remember: str | Mapping[str, Any] | None = None,
        arrange: str | Mapping[str, Any] | None = None,
        scoring: str | Mapping[str, Any] | None = None,
        target: str | Mapping[str, Any] | Sequence[Any] | None = None,
        seed: int = 17,
        **old: Unpack[OldNames],
    ) -> None:
        given = {
            "keep": keep,
            "score": score,
            "select": select,
            "temperature": temperature,
            "interval": interval,
            "warmup": warmup,
            "anneal": anneal,
            "remember": remember,
            "arrange": arrange,
            "scoring": scoring,
            "target": target,
            "seed": seed,
        }
        arguments, self._beside = renamed(old, given)
        self._given = {name: value for name, value in (given | old).items() if value is not None}
        self.settings = parse_settings(**arguments)
        self.fit: Fit | None = None
        self._listeners: list[Listener] = []
        self._memory = ScoreMemory(self.settings.score or self.settings.remember.score)
        self._scorer: Scorer | None = None
        self._counts = {"candidates": 0, "lessons": 0, "dropped": 0, "nonfinite": 0, "empty": 0}
        self._resumed: dict[str, Any] | None = None  # a checkpoint's state, until a fit goes on
        self._fitted: TeachingDataset | None = None  # data set of an earlier fit
        self._left_at: dict[str, Any] | None = None  # its state when that fit ended

    @property
    def last_choice(self) -> Choice | None:
        """The window that was chosen last."""
        return None if self.fit is None else self.fit.teaching.last_choice

    def listen(self, listener: Listener) -> None:
        """Call a function with each choice from now on, and the batches trained until then."""
        if listener not in self._listeners:
            self._listeners.append(listener)

    def described(self) -> dict[str, Any]:
        """What the run does, in words, and the arguments that were given."""
        does = "not started" if self.fit is None else self.fit.run.told
        return {"does": does, "attent": dict(self._given)}

    def match(self, event: Event, state: State) -> bool:
        """Whether it does anything at this event."""
        if event in _ALWAYS or self.fit is None:
            return event in _ALWAYS
        return event == Event.FIT_END or self.fit.effects.due(event, state)

    def apply(self, event: Event, state: State, logger: Logger) -> None:
        """Pass the event on."""
        if event == Event.INIT:
            state.algorithms.extend(one for one in self._beside if one not in state.algorithms)
        elif event == Event.FIT_START:
            self._fit_start(state, logger)
        elif self.fit is not None:
            if event == Event.FIT_END:
                self._fit_end(self.fit, state)
            self.fit.effects.run_event(event, state, logger)

    def state_dict(self) -> dict[str, Any]:
        """Counts, the ledger and the ranks' random numbers, as plain values and tensors. All ranks
        must call it together.
        """
        if self._resumed is not None:
            return self._resumed  # loaded, and no fit has gone on from it yet
        counts = {"version": VERSION, "counts": dict(self._counts)}
        if self.fit is None:
            return dict.fromkeys(_STATE) | counts
        self.fit.flush()
        return {
            **counts,
            **self._memory.state_dict(),
            "random": self.fit.random_states(),
            **self.fit.state_dict(),
        }

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Go on from ``state_dict``'s state.

        Raises:
            ValueError: A state of another version.
        """
        if state.get("version") != VERSION:
            raise ValueError(
                f"expected AtteNT's state of version {VERSION}, got version "
                f"{state.get('version')!r}: go on with the package that wrote it, or leave its "
                f"scores and counts behind with {LEAVE}"
            )
        self._counts.update({name: int(state["counts"].get(name, 0)) for name in self._counts})
        self._memory.load_state_dict(state)
        self._resumed = state

    def _fit_start(self, state: State, logger: Logger) -> None:
        loader = state.train_dataloader
        if not isinstance(loader, TeachingDataLoader):
            raise TypeError(
                "AtteNT needs a TeachingDataLoader over a TeachingDataset as train_dataloader, got "
                f"{type(loader).__name__}"
            )
        resumed, self._resumed = self._resumed, None
        before, self.fit = self.fit, None
        if resumed is None and int(state.timestamp.batch) == 0:
            self._forget()  # another run, perhaps on another corpus
        elif before is not None:
            before.flush()  # of a fit that was interrupted
        if before is not None:
            before.short.interrupted(state)
        find_place(state, loader, self._fitted, self._left_at)
        fit = open_fit(
            self.settings,
            state,
            loader,
            memory=self._memory,
            scorer_before=self._scorer,
            counts=self._counts,
            told=None if before is None else before.length.told,
            resumed=resumed,
        )
        fit.teaching.listeners = self._listeners
        warn(fit)
        attach(fit, state, self.settings, resumed)
        fit.length.begin_epoch(state)
        if resumed is not None and int(state.timestamp.batch_in_epoch) > 0:
            fit.length.resume_epoch(state, resumed)
        self.fit, self._scorer = fit, fit.scorer
        self._fitted, self._left_at = loader.dataset, None

    def _fit_end(self, fit: Fit, state: State) -> None:
        loader, samples = fit.loader, int(state.timestamp.sample_in_epoch)
        self._left_at = loader.dataset.state_dict(samples, True)
        loader.attach(None)  # it is its owner's again, and plain

    def _forget(self) -> None:
        self._memory.forget()
        self._scorer = None
        self._counts.update(dict.fromkeys(self._counts, 0))
