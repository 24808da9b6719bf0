"""Tiny language models that change their logits, and their scores with and without logits."""

import torch
from composer.models import HuggingFaceModel
from head_models import T
from ranks_fit import VOCAB

from attent_stream.score.build import build_scorer
from attent_stream.score.microbatches import score_batch

LOGGERS = ("attent_stream.score.headless", "attent_stream.score.build")


def both(
    model: HuggingFaceModel,
    batch: dict,
    *,
    score: str = "residual",
    head: str = "reference",
    size: int = 2,
):
    """Scores from logits, scores without, and the scorer without."""
    scorer = build_scorer(score, model, head=head)
    want = score_batch(build_scorer(score, model, head=None), model, batch, size)
    return want, score_batch(scorer, model, batch, size), scorer


def said(caplog) -> list[str]:
    return [record.getMessage() for record in caplog.records if record.name in LOGGERS]


class Shared(torch.nn.Embedding):
    """An embedding that is its own head, as llm-foundry has it."""

    def forward(self, input: torch.Tensor, unembed: bool = False) -> torch.Tensor:
        return torch.nn.functional.linear(input, self.weight) if unembed else super().forward(input)


class Tiny(torch.nn.Module):
    """A causal LM of one layer; ``after`` is what happens to its logits."""

    def __init__(
        self,
        head: torch.nn.Module | None = None,
        after=lambda logits: logits,
        calls: int = 1,
        **config,
    ):
        super().__init__()
        torch.manual_seed(0)
        self.embed = Shared(VOCAB, 16)
        self.layer = torch.nn.Linear(16, 16)
        self.head = head
        self.after, self.calls = after, calls
        self.config = T.PretrainedConfig(d_model=16, **config)

    def get_output_embeddings(self) -> torch.nn.Module:
        return self.embed if self.head is None else self.head

    def forward(self, input_ids: torch.Tensor, attention_mask: torch.Tensor | None = None) -> dict:
        hidden = self.layer(self.embed(input_ids)).tanh()
        for _ in range(self.calls):
            logits = self.embed(hidden, True) if self.head is None else self.head(input=hidden)
        return {"logits": self.after(logits)}


class Composed(torch.nn.Module):
    """The attributes of Composer's HuggingFaceModel that scoring needs."""

    def __init__(self, model: torch.nn.Module) -> None:
        super().__init__()
        self.model, self.config = model, model.config
        self.shift_labels, self.model_forward_args = True, {"input_ids", "attention_mask"}

    def forward(self, batch: dict) -> dict:
        return self.model(input_ids=batch["input_ids"])
