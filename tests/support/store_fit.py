"""A taught Composer run on a corpus in S3 that checkpoints to S3; it may kill itself."""

import os
import signal
import threading
from urllib.parse import urlparse

import torch
from composer import Trainer
from composer.callbacks import CheckpointSaver
from composer.core import Callback, Event
from transformers import GPT2Config, GPT2LMHeadModel

from attent_stream import AtteNT, TeachingDataLoader, TeachingDataset
from attent_stream.corpus.batches import TokenCollator
from attent_stream.launch.hf_model import wrapped

VOCAB, LENGTH = 300, 32


class Watch(Callback):
    """What was trained on, and the losses."""

    def __init__(self) -> None:
        self.tokens, self.losses = [], []

    def run_event(self, event, state, logger):
        if event == Event.BATCH_START:
            self.tokens.append(state.batch["input_ids"].tolist())
        elif event == Event.BATCH_END:
            self.losses.append(state.loss.item())


class Killer(Callback):
    """SIGKILL to this process after so many batches, as soon as the store has a checkpoint to go on
    from.
    """

    def __init__(self, at: int, save_folder: str) -> None:
        self.at, self.where = at, urlparse(save_folder)

    def batch_end(self, state, logger):
        if state.timestamp.batch.value < self.at:
            return
        # Composer sends the link to the latest checkpoint at the end of a batch, once that
        # checkpoint has arrived.
        if state.timestamp.batch.value == self.at and not self._arrives(".pt", 4000):
            raise RuntimeError("no checkpoint arrived in the store")
        if self._arrives(".symlink", 20):
            os.kill(os.getpid(), signal.SIGKILL)

    def _arrives(self, ending: str, looks: int) -> bool:
        import boto3

        client, pause = (
            boto3.client("s3", endpoint_url=os.environ["S3_ENDPOINT_URL"]),
            threading.Event(),
        )
        for _ in range(looks):
            found = client.list_objects_v2(
                Bucket=self.where.netloc, Prefix=self.where.path.strip("/")
            )
            if any(item["Key"].endswith(ending) for item in found.get("Contents", [])):
                return True
            pause.wait(0.1)
        return False


def fit(
    remote: str, local: str, save_folder: str | None = None, kill_at: int | None = None
) -> Watch:
    """Train two epochs, going on from what the store has."""
    torch.manual_seed(0)
    sizes = {
        "n_embd": 16,
        "n_layer": 2,
        "n_head": 2,
        "resid_pdrop": 0.0,
        "embd_pdrop": 0.0,
        "attn_pdrop": 0.0,
    }
    model = GPT2LMHeadModel(GPT2Config(vocab_size=VOCAB, n_positions=LENGTH, **sizes))
    model = wrapped(model, tokenizer=None, use_logits=True, shift_labels=True)
    dataset = TeachingDataset(
        remote=remote,
        local=local,
        split="train",
        batch_size=4,
        window=4,
        gap=1,
        shuffle=True,
        num_canonical_nodes=1,
    )
    watch = Watch()
    # Each upload takes its time, so the run that nothing kills makes few.
    interval = "1ep" if kill_at is None else "3ba"
    saving = (
        {"save_folder": save_folder, "save_interval": interval, "autoresume": True}
        if save_folder
        else {}
    )
    trainer = Trainer(
        model=model,
        run_name="stores",
        train_dataloader=TeachingDataLoader(
            dataset, batch_size=4, num_workers=2, collate_fn=TokenCollator()
        ),
        optimizers=torch.optim.SGD(model.parameters(), lr=0.1),
        max_duration="2ep",
        algorithms=[AtteNT(select="hard", keep=0.5, score="loss")],
        callbacks=[watch] if kill_at is None else [watch, Killer(kill_at, save_folder)],
        progress_bar=False,
        seed=3,
        **saving,
    )
    for callback in trainer.state.callbacks:
        if isinstance(callback, CheckpointSaver):
            # 30 by default: the run is over by then
            callback._symlink_upload_wait_before_next_try_in_seconds = 0.5
    trainer.fit()
    trainer.close()
    return watch
