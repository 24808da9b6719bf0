"""Floating point operations of a run, by one formula for every arm.

A trained token costs 6 N + 12 L H T: 2 N for the forward's matrix products with N weights, twice
that for the backward, and 4 L H T + 8 L H T for attention over T positions in L layers of width H
(PaLM, arXiv 2204.02311, appendix B). A candidate's token costs a third: one forward, as does a
lesson's that does not go backward (``backward``), and with ``positions`` the head's part of a
lesson is that share of it. With ``resolution`` a lesson has as many patches as its images then; a
candidate is counted at full size. Norms, softmax, selection and evaluations count as nothing. N is
all weights that multiply: without embedding tables, with the head, tied or not.
"""

from dataclasses import dataclass, replace
from typing import Any


@dataclass(frozen=True, kw_only=True)
class Shape:
    """What the formula needs.

    Args:
        weights: N.
        layers, width, positions: L, H, T.
        head: Of N, in the output head of a language model.
    """

    weights: int
    layers: int
    width: int
    positions: int
    head: int = 0

    def at(self, share: float, extra: int = 1) -> "Shape":
        """Of samples at a share of their positions, in (0, 1], but for the ``extra`` ones: of
        images the class token's.
        """
        return replace(self, positions=round((self.positions - extra) * share) + extra)

    @property
    def trained_token(self) -> float:
        """FLOPs of forward and backward, a token."""
        return 6.0 * self.weights + 12.0 * self.layers * self.width * self.positions

    def run(
        self, trained: float, candidates: float, *, positions: float = 1.0, backward: float = 1.0
    ) -> float:
        """FLOPs of a run.

        Args:
            trained: Tokens trained on (for images: patches).
            candidates: Tokens forwarded to score them.
            positions: Share of the trained tokens that the head is computed for.
            backward: Share of them that go backward.
        """
        lesson = (self.trained_token - 6.0 * self.head * (1 - positions)) * (1 + 2 * backward) / 3
        return lesson * trained + self.trained_token * candidates / 3


def shape_of(model: Any, config: Any, positions: int) -> Shape:
    """Of a torch module, its Hugging Face config and the number of positions of a sample."""
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
