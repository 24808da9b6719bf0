"""Measure a taught step relative to a plain one: the section ``step`` of ``bench_scoring.py``.

A plain step is a forward and backward of B samples with an AdamW update. A taught step with keep
0.5 also scores 2 B candidates, after a few layers and on a share of the tokens.
"""

import time
from collections.abc import Callable

import torch
from composer.models import HuggingFaceModel
from transformers import LlamaConfig, LlamaForCausalLM

from attent_stream.model.guard import untouched
from attent_stream.score.build import build_scorer
from attent_stream.score.fidelity import Fidelity, Tokens
from attent_stream.score.microbatches import MicrobatchScorer

KEEP = 0.5
# Layers, width, vocabulary, tokens, batch and scored layers: a 125M model, and for --quick a
# smaller one of the same proportions (the head is about a third of the work).
FULL = (12, 768, 32_000, 1024, 2, 1)
QUICK = (12, 256, 8_192, 256, 4, 1)
GPU = (12, 768, 50_257, 2_048, 16, 1)
TOY = (2, 64, 512, 32, 4, 1)


def taught_step(quick: bool) -> dict:
    """Measure medians over alternating steps: the step's ratio, and a candidate's cost ``s``."""
    return measured_step(QUICK if quick else FULL, rounds=3 if quick else 7)


def measured_step(sizes: tuple[int, ...], *, rounds: int, device: str = "cpu") -> dict:
    """The same for a model of these sizes, in bf16 on a GPU."""
    layers, width, vocabulary, tokens, size, scored = sizes
    torch.manual_seed(0)
    config = LlamaConfig(
        vocab_size=vocabulary,
        hidden_size=width,
        intermediate_size=4 * width,
        num_hidden_layers=layers,
        num_attention_heads=width // 64,
        max_position_embeddings=tokens,
    )
    model = HuggingFaceModel(
        LlamaForCausalLM(config), tokenizer=None, use_logits=True, shift_labels=True
    ).train()
    model = model.to(device)
    optimizer = torch.optim.AdamW(model.parameters(), lr=1e-4)
    fidelity = Fidelity(layers=scored, tokens=Tokens(share=0.125))
    scorer = MicrobatchScorer(build_scorer("residual", model, fidelity=fidelity), model)
    lessons, candidates = (
        _batch(rows, tokens, vocabulary, device) for rows in (size, round(size / KEEP))
    )
    precision = torch.autocast(device, torch.bfloat16, enabled=device == "cuda")

    def step() -> None:
        with precision:
            loss = model.loss(model(lessons), lessons)
        loss.backward()
        optimizer.step()
        optimizer.zero_grad()

    def score() -> None:
        with untouched(model), precision:
            scorer(candidates, size)

    def forward() -> None:
        with torch.no_grad(), precision:
            model(lessons)

    for call in (step, score, forward):
        call()
    pairs = [
        tuple(_seconds(call, device) for call in (step, score, forward)) for _ in range(rounds)
    ]
    ratios = sorted(1 + scoring / plain for plain, scoring, _ in pairs)
    costs = sorted(
        scoring * size / (len(candidates["labels"]) * whole) for _, scoring, whole in pairs
    )
    return {
        "taught_step_ratio": round(ratios[len(ratios) // 2], 3),
        "taught_step_fidelity": fidelity.name,
        "taught_step_keep": KEEP,
        "scoring_in_forwards": round(costs[len(costs) // 2], 3),
    }


def _batch(rows: int, tokens: int, vocabulary: int, device: str) -> dict[str, torch.Tensor]:
    ids = torch.randint(vocabulary, (rows, tokens), device=device)
    return {"input_ids": ids, "attention_mask": torch.ones_like(ids), "labels": ids.clone()}


def _seconds(call: Callable[[], None], device: str) -> float:
    begin = time.perf_counter()
    call()
    if device == "cuda":
        torch.cuda.synchronize()
    return time.perf_counter() - begin
