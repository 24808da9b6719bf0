"""Trainings in a row, as one rank of a job. Used in process, and by ``together`` on several
ranks: ``main`` runs one rank and writes the jobs' logs to a file. Jobs and logs are JSON: ``fit``'s
arguments by name of the job, and its results.
"""

import hashlib
import json
import os
import traceback
from unittest import mock

import numpy as np
import torch
from composer import Trainer
from composer.core import Callback, Event
from composer.loggers import InMemoryLogger
from composer.models import ComposerClassifier, HuggingFaceModel
from composer.utils import FSDP2Config
from fits import LossOnly
from torch import distributed as dist
from torch.distributed.checkpoint.state_dict import StateDictOptions, get_model_state_dict
from torch.distributed.tensor import DTensor
from transformers import GPT2Config, GPT2LMHeadModel, ViTConfig, ViTForImageClassification
from transformers.models.gpt2.modeling_gpt2 import GPT2Block
from transformers.models.vit.modeling_vit import ViTLayer

from attent_stream import AtteNT, TeachingDataLoader, TeachingDataset
from attent_stream.corpus.batches import TokenCollator
from attent_stream.corpus.chat_batches import ChatCollator
from attent_stream.fit.candidate_scorer import open_scorer
from attent_stream.launch.hf_model import wrapped
from attent_stream.launch.models import Logits
from attent_stream.model.batch import batch_length
from attent_stream.model.batch_form import BatchForm
from attent_stream.score.function_scorer import FunctionScorer
from attent_stream.score.scorer import Scorer

VOCAB, LENGTH, SIDE = 61, 24, 16


def language_model(dropout: float = 0.0) -> HuggingFaceModel:
    """A GPT-2 with tied embeddings, the same on every rank; its blocks are sharded one by one."""
    torch.manual_seed(0)
    config = GPT2Config(
        vocab_size=VOCAB,
        n_positions=LENGTH,
        n_embd=16,
        n_layer=2,
        n_head=2,
        resid_pdrop=dropout,
        embd_pdrop=dropout,
        attn_pdrop=dropout,
    )
    model = GPT2LMHeadModel(config)
    model.fsdp_wrap_fn = lambda module: isinstance(module, GPT2Block)
    return wrapped(model, tokenizer=None, use_logits=True, shift_labels=True)


def normed_classifier(dropout: float = 0.0) -> ComposerClassifier:
    """A classifier with buffers that training changes: DDP sends rank 0's to all before each
    training forward.
    """
    torch.manual_seed(0)
    layers = [
        torch.nn.Linear(LENGTH, 16),
        torch.nn.BatchNorm1d(16),
        torch.nn.Dropout(dropout),
        torch.nn.Linear(16, 5),
    ]
    return ComposerClassifier(torch.nn.Sequential(*layers), num_classes=5)


def classes(samples: list) -> tuple[torch.Tensor, torch.Tensor]:
    tokens = torch.from_numpy(np.stack([sample["tokens"] for sample in samples]).astype(np.int64))
    return tokens / VOCAB, tokens[:, -1] % 5


def image_model(dropout: float = 0.0) -> ComposerClassifier:
    """A ViT of 16 patches; its blocks are sharded one by one."""
    torch.manual_seed(0)
    config = ViTConfig(
        hidden_size=16,
        intermediate_size=32,
        num_hidden_layers=2,
        num_attention_heads=2,
        image_size=SIDE,
        patch_size=4,
        num_labels=5,
        hidden_dropout_prob=dropout,
    )
    model = ViTForImageClassification(config)
    model.fsdp_wrap_fn = lambda module: isinstance(module, ViTLayer)
    return ComposerClassifier(Logits(model), num_classes=5)


def images(samples: list) -> tuple[torch.Tensor, torch.Tensor]:
    values, target = classes(samples)
    return values.repeat(1, 3 * SIDE * SIDE // LENGTH).reshape(-1, 3, SIDE, SIDE), target


class FailsOnRank1(ComposerClassifier):
    """Its third and later forwards outside of training fail on rank 1."""

    forwards = 0

    def forward(self, batch):
        self.forwards += not self.training
        if not self.training and self.forwards > 2 and os.environ.get("RANK") == "1":
            raise RuntimeError("this rank cannot")
        return super().forward(batch)


def failing_classifier(dropout: float = 0.0) -> ComposerClassifier:
    torch.manual_seed(0)
    return FailsOnRank1(torch.nn.Linear(LENGTH, 5), num_classes=5)


MODELS = {
    "gpt2": (language_model, TokenCollator()),
    "chats": (language_model, ChatCollator()),
    "norm": (normed_classifier, classes),
    "vit": (image_model, images),
}
MODELS |= {
    "loss_only": (lambda dropout: LossOnly(), TokenCollator()),
    "fails": (failing_classifier, classes),
}


def energy(model, batch):
    """A score that needs a forward."""
    return model(batch)["logits"].float().square().mean((1, 2))


def short_of_memory(model, batch):
    """``energy`` where no more than two samples fit."""
    scores = energy(model, batch)
    if len(scores) > 2:
        raise torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 1.00 GiB.")
    return scores


def short_on_rank_1(model, batch):
    """``short_of_memory`` on rank 1, ``energy`` elsewhere."""
    return (short_of_memory if os.environ.get("RANK") == "1" else energy)(model, batch)


SCORES = {score.__name__: score for score in (energy, short_of_memory, short_on_rank_1)}


class ScoresLessons(AtteNT):
    """Scores each lesson batch before it trains, as candidates are, and makes nothing of it."""

    def apply(self, event, state, logger):
        if event == Event.AFTER_DATALOADER:
            self._own(state, state.batch, (0, 0))
        super().apply(event, state, logger)
        if event == Event.FIT_START:
            loader = state.train_dataloader
            form = BatchForm.of(loader)
            self._own = open_scorer(state, loader, self.fit.run, form, resumed=None, before=None)


class Watch(Callback):
    """What was trained on, and what came of it."""

    def __init__(self, algorithm: AtteNT | None, counts: dict) -> None:
        self.algorithm, self.counts, self._choice = algorithm, counts, None
        self.log = {
            "rows": [],
            "losses": [],
            "grads": [],
            "forwards": [],
            "choices": [],
            "sizes": [],
        }

    def run_event(self, event, state, logger):
        if event == Event.BATCH_START:
            rows = state.batch["input_ids"] if isinstance(state.batch, dict) else state.batch[0]
            self.log["rows"].append(rows.tolist())
            self.log["forwards"].append(self.counts["forwards"])
            choice = self.algorithm.last_choice if self.algorithm else None
            if choice is not self._choice:
                self._choice = choice
                self.log["choices"].append(
                    [choice.decision.by, choice.ids.tolist(), margin(choice)]
                )
        elif event == Event.AFTER_TRAIN_BATCH:
            self.log["grads"].append(digest(param.grad for param in state.model.parameters()))
        elif event == Event.BATCH_END:
            self.log["losses"].append(state.total_loss_dict["loss/train/total"])
            self.log["sizes"].append(state.device_train_microbatch_size)
        elif event == Event.FIT_END:
            self.log["model"] = digest([*state.model.parameters(), *state.model.buffers()])
            whole = get_model_state_dict(
                state.model, options=StateDictOptions(full_state_dict=True)
            )
            every = torch.cat(
                [value.flatten().float() for value in whole.values()] or [torch.ones(0)]
            )
            self.log["weights"] = every[:: max(1, len(every) // 500)].tolist()


class Reference(Callback):
    """Each lesson's own loss, in float64, from the weights that it is trained with."""

    def __init__(self, loader: TeachingDataLoader) -> None:
        self.loader, self.losses = loader, {}

    def run_event(self, event, state, logger):
        if event == Event.BATCH_START:
            weights = get_model_state_dict(
                state.model, options=StateDictOptions(full_state_dict=True)
            )
            model = language_model().double()
            model.load_state_dict(weights)
            tokens = state.batch["input_ids"]
            with torch.no_grad():
                log_p = model.model(input_ids=tokens).logits[:, :-1].log_softmax(-1)
            losses = -log_p.gather(-1, tokens[:, 1:, None])[..., 0].mean(1)
            self.losses |= dict(
                zip(self.loader.epoch.lesson[0].tolist(), losses.tolist(), strict=True)
            )


def margin(choice) -> float | None:
    """By how much the last kept score exceeds the first dropped one, in the lane where it does so
    least.
    """
    if choice.scores is None or choice.kept.all():
        return None
    lanes, kept, scores = choice.window.lanes, choice.kept, choice.scores
    return min(
        float(scores[kept & (lanes == lane)].min() - scores[~kept & (lanes == lane)].max())
        for lane in np.unique(lanes)
    )


def digest(tensors) -> str:
    """A fingerprint of this rank's bits."""
    sha = hashlib.sha256()
    for tensor in tensors:
        if tensor is not None:
            tensor = tensor.to_local() if isinstance(tensor, DTensor) else tensor
            sha.update(tensor.detach().cpu().contiguous().numpy().tobytes())
    return sha.hexdigest()


PARALLEL = {
    None: lambda: None,
    "fsdp1": lambda: {"fsdp": {"mixed_precision": "FULL"}},
    "fsdp2": lambda: {"fsdp": FSDP2Config(mixed_precision="FULL")},
    "fsdp1_sharded": lambda: {"fsdp": {"mixed_precision": "FULL", "state_dict_type": "sharded"}},
    "fsdp2_sharded": lambda: {
        "fsdp": FSDP2Config(mixed_precision="FULL", state_dict_type="sharded")
    },
}


def fit(
    *,
    data,
    attent=None,
    cls="AtteNT",
    model="gpt2",
    dropout=0.0,
    parallel=None,
    backend=None,
    microbatch=None,
    workers=0,
    duration="1ep",
    reference=False,
    auto=False,
    precision="fp32",
    saving=None,
    lr=0.1,
    optimizer="SGD",
) -> dict:
    """One training; what this rank saw of it.

    Args:
        data: TeachingDataset's settings.
        attent: AtteNT's, or None for a plain run; ``score`` may also be a name in ``SCORES``.
        cls: ``AtteNT`` or ``ScoresLessons``.
        model: A name in ``MODELS``.
        parallel: A name in ``PARALLEL``.
        backend: Of torch.compile: ``count`` runs and counts the graphs.
        reference: Also log the ledger, and what it must hold.
        saving: The Trainer's arguments about checkpoints.
        optimizer: A name in ``torch.optim``.
        auto: Let the trainer think that it looks for the microbatch itself (Composer refuses to
            without a GPU).
    """
    torch._dynamo.reset()
    build, collate = MODELS[model]
    learner = build(dropout)
    dataset = TeachingDataset(**data)
    loader = TeachingDataLoader(
        dataset, batch_size=data["batch_size"], collate_fn=collate, num_workers=workers
    )
    algorithm = None
    if attent is not None:
        named = {"score": SCORES.get(attent["score"], attent["score"])} if "score" in attent else {}
        algorithm = {"AtteNT": AtteNT, "ScoresLessons": ScoresLessons}[cls](**attent | named)
    counts = {"forwards": 0, "graphs": 0, "samples": []}

    def counted_forwards(kind):
        forward = kind.forward

        def counted(self, model, batch):
            counts["forwards"] += 1
            counts["samples"].append(batch_length(batch))
            return forward(self, model, batch)

        return mock.patch.object(kind, "forward", counted)

    def counted_graph(graph, inputs):
        counts["graphs"] += 1
        return graph.forward

    watch, check, memory = Watch(algorithm, counts), Reference(loader), InMemoryLogger()
    with counted_forwards(Scorer), counted_forwards(FunctionScorer):
        trainer = Trainer(
            model=learner,
            train_dataloader=loader,
            optimizers=getattr(torch.optim, optimizer)(learner.parameters(), lr=lr),
            max_duration=duration,
            algorithms=[algorithm] if algorithm else [],
            callbacks=[watch, check] if reference else [watch],
            loggers=[memory],
            progress_bar=False,
            parallelism_config=PARALLEL[parallel](),
            compile_config={"backend": counted_graph if backend == "count" else backend}
            if backend
            else None,
            device_train_microbatch_size=microbatch,
            precision=precision,
            seed=5,
            **(saving or {}),
        )
        trainer.state.auto_microbatching = auto
        trainer.fit()
    log = watch.log | {"graphs": counts["graphs"], "samples": counts["samples"]}
    if reference:
        algorithm.fit.flush()
        log["expected"] = {str(key): value for key, value in check.losses.items()}
        log["ledger"] = algorithm.fit.teacher.ledger.recall(np.arange(dataset.num_samples)).tolist()
    log["metrics"] = {
        name: values[-1][1] for name, values in memory.data.items() if name.startswith("attent/")
    }
    trainer.close()
    return log


def main(rank: str, world: str, port: str, out: str, jobs: str) -> None:
    os.environ |= {
        "RANK": rank,
        "WORLD_SIZE": world,
        "LOCAL_RANK": rank,
        "LOCAL_WORLD_SIZE": world,
        "NODE_RANK": "0",
    }
    os.environ |= {"MASTER_ADDR": "127.0.0.1", "MASTER_PORT": port}
    torch.set_num_threads(1)
    # Composer asks for it to build FSDP1, on any device
    torch.cuda.current_device = lambda: torch.device("cpu")
    logs = {}
    for name, job in json.loads(jobs).items():
        try:
            logs[name] = fit(**job)
        except (
            Exception
        ) as error:  # told to the test; a rank that waits for this one is ended by it
            traceback.print_exc()
            logs[name] = {"error": f"{type(error).__name__}: {error}"}
            break
    with open(out, "w") as file:
        json.dump(logs, file)
    dist.destroy_process_group()
