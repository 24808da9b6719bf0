"""Floating point operations of a run, by one formula for every arm.

A trained token costs 6 N + 12 L H T. The forward costs 2 N for the matrix products with N weights
and 4 L H T for attention over T positions in L layers of width H; the backward costs twice as much
(PaLM, arXiv 2204.02311, appendix B). A candidate's token has no backward and costs a third. A share
of positions scales the head's cost, and a smaller resolution the patches of a lesson, but not of a
candidate. Norms, softmax, selection and evaluations are not
counted. N counts the head, tied or not, but no embedding tables.
"""

from dataclasses import dataclass, replace
from typing import Any


@dataclass(frozen=True, kw_only=True)
class Shape:
    """The model's sizes in the formula.

    Args:
        weights: N.
        layers, width, positions: L, H, T.
        head: Weights of a language model's output head, part of N.
    """

    weights: int
    layers: int
    width: int
    positions: int
    head: int = 0

    def at(self, share: float, extra: int = 1) -> "Shape":
        """Scale the positions by a share in (0, 1], except ``extra`` ones (the class token)."""
        return replace(self, positions=round((self.positions - extra) * share) + extra)

    @property
    def trained_token(self) -> float:
        """FLOPs of a token's forward and backward."""
        return 6.0 * self.weights + 12.0 * self.layers * self.width * self.positions

    def run(self, trained: float, candidates: float, *, head: float = 1.0) -> float:
        """Return the FLOPs of a run.

        Args:
            trained: Trained tokens (patches of images).
            candidates: Scored tokens.
            head: Share of the trained tokens with an output head.
        """
        lesson = self.trained_token - 6.0 * self.head * (1 - head)
        return lesson * trained + self.trained_token * candidates / 3


def shape_of(model: Any, config: Any, positions: int) -> Shape:
    """Return the shape of a torch module with a Hugging Face config; ``positions`` per sample."""
    import torch

    tables = sum(m.weight.numel() for m in model.modules() if isinstance(m, torch.nn.Embedding))
    weights = sum(p.numel() for p in model.parameters() if p.ndim > 1) - tables
    if getattr(config, "tie_word_embeddings", False) and tables:
        weights += config.vocab_size * config.hidden_size
    head = config.vocab_size * config.hidden_size if tables and hasattr(config, "vocab_size") else 0
    return Shape(
        weights=weights,
        layers=config.num_hidden_layers,
        width=config.hidden_size,
        positions=positions,
        head=head,
    )
