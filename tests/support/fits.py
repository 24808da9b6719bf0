"""A small language model, its loader, and a fit that keeps what it trained on."""

import copy

import torch
from composer import Trainer
from composer.core import Callback, Event
from composer.loggers import InMemoryLogger
from composer.models import ComposerModel, HuggingFaceModel
from streaming import MDSWriter
from torch import nn
from transformers import GPT2Config, GPT2LMHeadModel, LlamaConfig, LlamaForCausalLM

from attent_stream import AtteNT, TeachingDataLoader, TeachingDataset
from attent_stream.corpus.batches import TokenCollator
from attent_stream.launch.hf_model import wrapped

VOCAB, LENGTH, BATCH = 61, 24, 4


def make_model(dropout: float = 0.0, seed: int = 0) -> HuggingFaceModel:
    torch.manual_seed(seed)
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
    return wrapped(GPT2LMHeadModel(config), tokenizer=None, use_logits=True, shift_labels=True)


def make_rotary() -> HuggingFaceModel:
    """A LLaMA. It learns no positions, so packed text is cut into pieces by default."""
    torch.manual_seed(0)
    config = LlamaConfig(
        vocab_size=VOCAB,
        hidden_size=16,
        intermediate_size=32,
        num_hidden_layers=1,
        num_attention_heads=2,
        num_key_value_heads=2,
    )
    return wrapped(LlamaForCausalLM(config), tokenizer=None, use_logits=True, shift_labels=True)


def make_loader(folder: str, window: int = 4, **kwargs) -> TeachingDataLoader:
    dataset = TeachingDataset(
        local=folder, batch_size=BATCH, window=window, gap=1, shuffle=True, num_canonical_nodes=1
    )
    return TeachingDataLoader(
        dataset, batch_size=BATCH, **{"collate_fn": TokenCollator(), **kwargs}
    )


class LossOnly(ComposerModel):
    """A loss of its own kernel: neither outputs for each sample nor a cross-entropy in its
    graph.
    """

    def __init__(self) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.body, self.head = nn.Embedding(VOCAB, 8), nn.Linear(8, VOCAB)

    def forward(self, batch):
        z = self.head(self.body(batch["input_ids"]))[:, :-1].flatten(0, 1)
        own = z.gather(1, batch["labels"][:, 1:].reshape(-1, 1))[:, 0]
        return {"loss": (z.exp().sum(1).log() - own).mean()}

    def loss(self, outputs, batch):
        return outputs["loss"]


class TextLossOnly(LossOnly):
    """The same, as a causal language model, whose losses are remembered by default."""

    shift_labels = True


class Steps(torch.optim.SGD):
    """Counts its steps."""

    taken = 0

    def step(self, *args, **kwargs):
        result = super().step(*args, **kwargs)
        self.taken += 1
        return result


def write(folder, columns, samples) -> str:
    """A data set of these samples."""
    with MDSWriter(out=str(folder), columns=columns) as writer:
        for sample in samples:
            writer.write(sample)
    return str(folder)


class Watched(AtteNT):
    """AtteNT that checks that teaching leaves modes, buffers, gradients and random numbers as they
    were.
    """

    taught = 0

    def apply(self, event, state, logger):
        def snapshot():
            model = state.model
            grads = [p.grad.clone() if p.grad is not None else None for p in model.parameters()]
            return (
                torch.get_rng_state(),
                [m.training for m in model.modules()],
                [*model.buffers()],
                grads,
            )

        before = copy.deepcopy(snapshot())
        super().apply(event, state, logger)
        if event == Event.AFTER_DATALOADER:
            self.taught += 1
            torch.testing.assert_close(list(snapshot()), list(before), rtol=0, atol=0)


class Watch(Callback):
    """Keeps what was trained on, and the losses."""

    def __init__(self) -> None:
        self.tokens, self.losses = [], []

    def run_event(self, event, state, logger):
        if event == Event.BATCH_START:
            batch = state.batch["input_ids"] if isinstance(state.batch, dict) else state.batch[1]
            self.tokens.append(batch.tolist())
        elif event == Event.BATCH_END:
            self.losses.append(state.loss.item())


def fit(loader, algorithms, model=None, **kwargs):
    model = model or make_model()
    watch, memory = Watch(), InMemoryLogger()
    trainer = Trainer(
        model=model,
        train_dataloader=loader,
        optimizers=torch.optim.SGD(model.parameters(), lr=0.1),
        max_duration=kwargs.pop("max_duration", "1ep"),
        algorithms=algorithms,
        callbacks=[watch, *kwargs.pop("callbacks", [])],
        loggers=[memory],
        progress_bar=False,
        **kwargs,
    )
    trainer.fit()
    trainer.close()
    return watch, memory, trainer
