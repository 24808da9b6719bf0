"""Scores of a GPT-2 with tied embeddings on one of two ranks, in every wrapper.

``main`` runs one of the ranks.
"""

import json
from pathlib import Path

import torch
from head_models import build, text
from torch import distributed as dist
from torch.distributed.fsdp import FullyShardedDataParallel, fully_shard
from torch.distributed.tensor import DeviceMesh, Replicate, Shard
from torch.distributed.tensor.parallel import ColwiseParallel, parallelize_module
from torch.nn.parallel import DistributedDataParallel
from transformers.models.gpt2.modeling_gpt2 import GPT2Block

from attent_stream.base.errors import ScoreError
from attent_stream.score import head_call
from attent_stream.score.build import build_scorer
from attent_stream.score.microbatches import score_batch


def ddp(model, mesh):
    return DistributedDataParallel(model)


def fsdp1(model, mesh):
    torch.cuda.current_device = lambda: torch.device("cpu")  # what FSDP 1 asks for even on a CPU
    policy = lambda module, recurse, nonwrapped_numel: recurse or isinstance(module, GPT2Block)  # noqa: E731
    return FullyShardedDataParallel(
        model, auto_wrap_policy=policy, use_orig_params=True, device_id=torch.device("cpu")
    )


def fsdp2(model, mesh):
    for block in model.model.transformer.h:
        fully_shard(block, mesh=mesh)
    fully_shard(model, mesh=mesh)
    return model


def tensor(model, mesh):
    untie(model)
    parallelize_module(model.model.lm_head, mesh, ColwiseParallel(output_layouts=Replicate()))
    return model


def split_logits(model, mesh):
    untie(model)
    parallelize_module(model.model.lm_head, mesh, ColwiseParallel(output_layouts=Shard(-1)))
    return model


def untie(model):
    model.model.lm_head.weight = torch.nn.Parameter(model.model.lm_head.weight.detach().clone())


def scored(wrap, mesh, batch, spoil: bool = False) -> dict:
    """Score a batch twice; log the lengths of the head's outputs and why it was refused."""
    model = build("gpt2")
    lengths = []
    model.model.lm_head.register_forward_hook(
        lambda module, args, out: lengths.append(out.shape[1])
    )
    model = wrap(model, mesh)
    scorer = build_scorer("residual", model, head="reference")
    right = head_call.head_scores
    if spoil:
        head_call.head_scores = lambda *args, **given: tuple(
            2 * scores for scores in right(*args, **given)
        )
    try:
        for _ in range(2):
            scores = score_batch(scorer, model, batch, 2)
    except ScoreError as error:
        return {"error": str(error)}
    finally:
        head_call.head_scores = right
    return {"scores": scores.tolist(), "lengths": lengths, "refused": scorer.headless.refused}


def main(rank: int, port: str, out: str) -> None:
    dist.init_process_group("gloo", init_method=f"tcp://127.0.0.1:{port}", rank=rank, world_size=2)
    mesh = DeviceMesh("cpu", [0, 1])
    batch = text()
    keep = torch.tensor([0, 1, 2, 4])[2 * rank : 2 * rank + 2]
    mine = {name: values[keep] for name, values in batch.items()}
    both = {name: values[:2] for name, values in batch.items()}
    logs = {wrap.__name__: scored(wrap, mesh, mine) for wrap in (ddp, fsdp1, fsdp2)}
    logs["tensor"] = scored(tensor, mesh, both)
    # With wrong scores on rank 1 only, both ranks compute their logits, and none hangs.
    logs["odd one out"] = scored(fsdp2, mesh, mine, spoil=rank == 1)
    logs["split logits"] = scored(split_logits, mesh, both)
    Path(out).write_text(json.dumps(logs))
    dist.destroy_process_group()
