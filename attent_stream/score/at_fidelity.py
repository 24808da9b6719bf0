"""Scores candidates in training: in full, in a cheaper way, by a proxy, or automatically."""

import logging
from collections.abc import Callable, Mapping
from typing import Any

import torch
from numpy.typing import NDArray
from torch import Tensor
from torch.nn import Conv2d, Module

from attent_stream.base.errors import FidelityError
from attent_stream.model.batch_form import BatchForm
from attent_stream.model.output_head import HeadError, find_head
from attent_stream.model.reading import Reading
from attent_stream.model.vision import patch_embedding
from attent_stream.model.wrapping import model_name, unwrap
from attent_stream.score.auto_fidelity import AutoScorer, usual_ways
from attent_stream.score.build import build_scorer
from attent_stream.score.cost import ModelCost, model_cost
from attent_stream.score.early_exit import find_blocks
from attent_stream.score.fidelity import FULL, AutoFidelity, Fidelity
from attent_stream.score.microbatches import MicrobatchScorer
from attent_stream.score.scores import Score

log = logging.getLogger(__name__)


class ScorerAtFidelity:
    """Scores candidates at a fidelity.

    Args:
        score: See ``build_scorer``.
        model: The learner, wrapped as in training.
        head: See ``build_scorer``.
        fidelity: How much of a candidate and of the model is used.
        device: The learner's device.
        full_precision: Whether training is in fp32.
        gather: Gathers this rank's values from all ranks, as ``gather_ranks`` does.
        ranks: Number of ranks that score different samples.
        seed: Seeds a proxy's weights and what is drawn at random.
        keep: Share of the candidates that become lessons. A proxy is trained on lessons.

    Attributes:
        model: The model that scores: the learner, or a proxy.

    Raises:
        FidelityError: The model cannot be scored at this fidelity.
        ScoreError: See ``build_scorer``.
    """

    def __init__(
        self,
        score: str | Score | Callable[[Module, Any], Tensor],
        model: Module,
        *,
        head: str | None,
        fidelity: Fidelity | AutoFidelity,
        device: torch.device,
        full_precision: bool,
        gather: Callable[[Tensor], NDArray],
        ranks: int,
        seed: int,
        keep: float = 1.0,
    ) -> None:
        self.model = model
        self._proxy: Any = None
        # In full forwards of the learner: a full forward of the proxy, and its training for each
        # candidate
        self._proxy_cost, self._training_cost = 1.0, 0.0
        self._auto: AutoScorer | None = None
        self._seed = seed
        self._fidelity = fidelity
        self._model_cost = _counted(model, full_precision)

        def scorer(fidelity: Fidelity) -> MicrobatchScorer:
            made = build_scorer(score, self.model, head=head, fidelity=fidelity)
            return MicrobatchScorer(made, self.model)

        if isinstance(fidelity, AutoFidelity):
            full = scorer(FULL)
            ways = {way: scorer(way) for way in fidelity.ways or _usual(model)}
            gpu = device.type == "cuda"
            self._auto = AutoScorer(
                fidelity, full, ways, self._model_cost, gather=gather, ranks=ranks, gpu=gpu
            )
            self._scoring: AutoScorer | MicrobatchScorer = self._auto
            return
        if fidelity.proxy is not None:
            self._proxy = fidelity.proxy.build(model, device, seed=seed)
            self.model = self._proxy.model
            total = _counted(self.model, full_precision).total
            self._proxy_cost = total / max(1, self._model_cost.total)
            if self._proxy.trained:  # a step costs three forwards
                self._training_cost = 3 * keep * self._proxy_cost / fidelity.proxy.every
        self._scoring = scorer(fidelity)

    def read_by(self, reading: Reading | None, form: BatchForm) -> None:
        """Use this reading of the model's outputs and this form of batches from now on."""
        self._scoring.read_by(reading, form)

    @property
    def sharded(self) -> bool:
        """Whether a forward of the model needs the other ranks."""
        return self._scoring.sharded

    @property
    def cost(self) -> float:
        """Cost of scoring one candidate now, in full forwards of the learner.

        It is counted and not timed, so that it is the same on every rank and after a resume. It
        includes a proxy's training. A fixed fidelity's cost leaves out attention, which depends on
        the length of samples.
        """
        if self._auto is not None:
            return self._auto.cost
        return self._proxy_cost * self._model_cost.of(self._fidelity, 0) + self._training_cost

    def __call__(self, batch: Any, microbatch: int, window: tuple[int, int]) -> Tensor:
        """Score candidates, float32 of shape (B,); see ``MicrobatchScorer``.

        Args:
            batch: On the learner's device.
            microbatch: Samples in a forward.
            window: The candidates' epoch and window index, which seed what is drawn at random.
        """
        return self._scoring(batch, microbatch, (self._seed, *window))

    def learns_from(self, batches: int) -> bool:
        """Whether a proxy is trained on the batch that follows this many batches."""
        return self._proxy is not None and self._proxy.learns_from(batches)

    def learn(self, batch: Any) -> None:
        """Train the proxy on a batch of lessons.

        All ranks must call this together, for the batches that ``learns_from`` names.
        """
        self._proxy.learn(batch)

    @property
    def learns(self) -> bool:
        """Whether there is a proxy in training."""
        return self._proxy is not None and self._proxy.trained

    def window_chosen(self, keep: float) -> dict[str, float]:
        """Note that a scored window was chosen with this share kept.

        Returns:
            Metrics by name. Empty where nothing was measured.
        """
        if self._auto is None:
            return {}
        metrics = {}
        for one in self._auto.window_chosen(keep):
            for name in ("spearman", "overlap", "cost", "time"):
                metrics[f"{one.way.name}/{name}"] = getattr(one, name)
                if one.way == self._auto.way:
                    metrics[name] = getattr(one, name)
        if metrics and "cost" not in metrics:
            metrics |= dict.fromkeys(("spearman", "overlap", "cost", "time"), 1.0)  # the full score
        return metrics

    def state_dict(self) -> dict[str, Any]:
        """The decision of ``auto`` and the state of a trained proxy; the same on all ranks."""
        if self._auto is not None:
            return {"auto": self._auto.state_dict()}
        return {"proxy": self._proxy.state_dict()} if self.learns else {}

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Load what ``state_dict`` returned. The state of another kind of fidelity is ignored."""
        if self._auto is not None and "auto" in state:
            self._auto.load_state_dict(state["auto"])
        if self.learns and "proxy" in state:
            self._proxy.load_state_dict(state["proxy"])


def _usual(model: Module) -> tuple[Fidelity, ...]:
    head = _head(model)
    blocks = _found(find_blocks, model)
    patches = blocks is not None and _found(patch_embedding, model) is not None
    images = any(isinstance(module, Conv2d) for module in unwrap(model).modules())
    ways = usual_ways(text=head is not None, blocks=blocks, patches=patches, images=images)
    if not ways:
        raise FidelityError(
            "fidelity: expected auto for a model of equal blocks, of tokens or of images, received "
            f"{model_name(model)}: name the ways to try, or leave fidelity at full"
        )
    return ways


def _counted(model: Module, full_precision: bool) -> ModelCost:
    return model_cost(
        model, _found(find_blocks, model), _head(model), full_precision=full_precision
    )


def _found(find: Callable[[Module], Any], model: Module) -> Any:
    try:
        return find(model)
    except FidelityError as reason:
        log.debug("Not tried: %s.", reason)
        return None


def _head(model: Module) -> Module | None:
    try:
        return find_head(model).module
    except HeadError:
        return None
