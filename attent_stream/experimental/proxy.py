"""A small model that scores in the learner's place, given or trained along on the same lessons."""

import os
from collections.abc import Mapping
from typing import Any

import torch
from torch import distributed as dist
from torch.nn import Module
from torch.nn.utils import parameters_to_vector

from attent_stream.base.errors import FidelityError
from attent_stream.base.watch import collective
from attent_stream.launch.config_check import ConfigError, typed
from attent_stream.launch.config_sections import ModelConfig
from attent_stream.launch.models import build_model
from attent_stream.model.traits import Traits
from attent_stream.score.fidelity import ProxySettings


class Proxy:
    """A proxy and, where it learns along, its optimizer; the same on every rank, whole on each.

    Args:
        settings: What it is.
        learner: Decides what kind of model a folder holds; only looked at.
        device: Where it lives.
        seed: Of its random weights.

    Attributes:
        model: A ComposerModel.

    Raises:
        FidelityError: It cannot be built.
    """

    def __init__(
        self, settings: ProxySettings, learner: Module, device: torch.device, *, seed: int
    ) -> None:
        self.model = other_model(settings.model, learner, device, seed=seed, key="fidelity.proxy")
        # Also while it learns: its dropout would draw from the learner's random numbers
        self.model.eval()
        self.trained = settings.train
        self._every = settings.every
        self._optimizer = None
        if settings.train:
            self._optimizer = torch.optim.AdamW(
                self.model.parameters(), lr=settings.lr, weight_decay=settings.weight_decay
            )

    def learns_from(self, batches: int) -> bool:
        """Whether it learns from the batch after so many: from one of ``every``, where it learns at
        all.
        """
        return self._optimizer is not None and batches % self._every == 0

    def learn(self, batch: Any) -> None:
        """One step on a batch of lessons on its device, its gradient the mean over all ranks', who
        all call this together.
        """
        with torch.enable_grad():
            loss = self.model.loss(self.model(batch), batch)
            loss = sum(loss) if isinstance(loss, (tuple, list)) else loss
            loss.backward()
        self._average()
        torch.nn.utils.clip_grad_norm_(self.model.parameters(), 1.0)
        self._optimizer.step()
        self._optimizer.zero_grad()

    def state_dict(self) -> dict[str, Any]:
        """Weights and the optimizer's state, of a proxy that learns: what a given one is, its
        folder says.
        """
        if self._optimizer is None:
            return {}
        return {"model": self.model.state_dict(), "optimizer": self._optimizer.state_dict()}

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Go on from ``state_dict``'s state.

        Raises:
            FidelityError: The state is of another proxy.
        """
        if self._optimizer is None or not state:
            return
        try:
            self.model.load_state_dict(state["model"])
            self._optimizer.load_state_dict(state["optimizer"])
        except (RuntimeError, ValueError, KeyError) as error:
            reason = str(error).split("\n")[0]
            raise FidelityError(
                f"fidelity.proxy: expected the proxy of the checkpoint, received another ({reason})"
            ) from error

    def _average(self) -> None:
        if not dist.is_initialized() or dist.get_world_size() == 1:
            return
        params = [param for param in self.model.parameters() if param.grad is not None]
        mean = parameters_to_vector([param.grad for param in params])
        with collective("the mean of the proxy's gradients"):
            dist.all_reduce(mean)
        mean /= dist.get_world_size()
        for param, part in zip(
            params, mean.split([param.numel() for param in params]), strict=True
        ):
            param.grad.copy_(part.view_as(param))


def other_model(
    model: Any, learner: Module, device: torch.device, *, seed: int, key: str
) -> Module:
    """A model beside the learner, whose random numbers stay as they are.

    Args:
        model: A folder with a Hugging Face model, the keys of a ``model`` section, or a
            ComposerModel.
        learner: Decides what kind of model a folder holds; only looked at.
        device: Where it will be.
        seed: Of random weights.
        key: Where in the settings it stands, for errors.

    Raises:
        FidelityError: It cannot be built.
    """
    with torch.random.fork_rng(devices=[device] if device.type == "cuda" else []):
        torch.manual_seed(seed)
        return _built(model, learner, key).to(device)


def _built(model: Any, learner: Module, key: str) -> Module:
    if isinstance(model, Module):
        return model
    if isinstance(model, str):
        if not os.path.isdir(model):
            raise FidelityError(
                f"{key}.model: expected a folder with a Hugging Face model, received {model!r}"
            )
        section = {"name": _kind(Traits.of(learner)), "pretrained": model}
    else:
        section = dict(model)
    try:
        return build_model(typed(section, ModelConfig, f"{key}.model"))
    except ConfigError as error:
        raise FidelityError(
            f"{key}: expected a model that can be built, received one that cannot: {error}"
        ) from error


def _kind(traits: Traits) -> str:
    if traits.forward_args is None:
        return "hf_image_classifier"
    return "hf_causal_lm" if traits.shift_labels else "hf_masked_lm"
