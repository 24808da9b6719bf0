"""llm-foundry's own ``train`` with our loaders and the default of ``AtteNT``, on tiny models.

Oracle: its own loaders. Skipped without llm-foundry; see test_foundry.py.
"""

import logging
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from foundry_jobs import EOS, built, check_equal, make_tokenizer
from omegaconf import OmegaConf
from streaming import JSONWriter, MDSWriter

YAMLS = Path(__file__).parents[2] / "yamls" / "llmfoundry"
CPU = {"precision": "fp32", "device_train_microbatch_size": 4, "global_train_batch_size": 8}


@pytest.fixture(autouse=True)
def foundry():
    """llm-foundry, or a skip that names it."""
    return pytest.importorskip("llmfoundry", reason="llm-foundry is not installed")


@pytest.fixture(scope="module")
def tokenizer():
    return make_tokenizer()


@pytest.fixture(scope="module")
def folders(tmp_path_factory, tokenizer) -> dict[str, str]:
    """Packed text of 16 tokens; answers as words, and as tokens with labels; a tokenizer."""
    folder = tmp_path_factory.mktemp("foundry")
    rng = np.random.default_rng(3)
    for split, samples in (("train", 160), ("val", 16)):
        columns = {"tokens": "ndarray:uint16"}
        with MDSWriter(out=str(folder / "text" / split), columns=columns) as writer:
            for _ in range(samples):
                writer.write({"tokens": rng.integers(3, 40, 16).astype(np.uint16)})
        words = {"prompt": "str", "response": "str"}
        with MDSWriter(out=str(folder / "words" / split), columns=words) as writer:
            for _ in range(48):
                prompt, response = (
                    " ".join(f"t{word}" for word in rng.integers(3, 40, rng.integers(2, 7)))
                    for _ in range(2)
                )
                writer.write({"prompt": prompt, "response": response})
        tokens = {"input_ids": "ndarray:int32", "labels": "ndarray:int32"}
        with MDSWriter(out=str(folder / "tokens" / split), columns=tokens) as writer:
            for _ in range(48):
                ids = rng.integers(3, 40, rng.integers(6, 14)).astype(np.int32)
                writer.write({"input_ids": ids[:3], "labels": ids[3:]})
    tokenizer.save_pretrained(folder / "tokenizer")
    return {path.name: str(path) for path in folder.iterdir()}


def answers(folder: str, name: str, workers: int = 0, **dataset) -> dict:
    given = {
        "local": folder,
        "split": "train",
        "shuffle": True,
        "shuffle_seed": 5,
        "max_seq_len": 16,
        "decoder_only_format": True,
        **dataset,
    }
    # Theirs reads a streaming data set only where there is a remote.
    theirs = {"remote": folder, "local": dataset.get("local", folder)}
    return {
        "name": name,
        "dataset": given | (theirs if name == "finetuning" else {}),
        "drop_last": True,
        "num_workers": workers,
        "pin_memory": False,
        "persistent_workers": False,
        "prefetch_factor": 2 if workers else None,
    }


@pytest.mark.parametrize("workers", [0, 2])
@pytest.mark.parametrize("kind", ["words", "tokens"])
@pytest.mark.parametrize(
    "dataset", [{}, {"target_prompts": "all", "allow_pad_trimming": True}, {"packing_ratio": 2.0}]
)
def test_without_a_teacher_the_answers_are_llm_foundrys(
    folders, tokenizer, tmp_path, kind, dataset, workers
):
    local = {"local": str(tmp_path / "cache")}
    theirs = built(answers(folders[kind], "finetuning", workers, **dataset, **local), tokenizer)
    expected = list(theirs.dataloader)
    counts = [theirs.get_num_tokens_in_batch(batch, "loss_generating") for batch in expected]
    del theirs
    ours = built(answers(folders[kind], "attent_finetuning", workers, **dataset), tokenizer)
    batches = list(ours.dataloader)
    assert len(batches) == (6 if dataset.get("packing_ratio") else 12)
    check_equal(batches, expected)
    assert [ours.get_num_tokens_in_batch(batch, "loss_generating") for batch in batches] == counts


@pytest.mark.parametrize("targets", ["last", "all"])
def test_what_corpus_chat_writes_is_trained_on_as_its_labels_say(tokenizer, tmp_path, targets):
    ids, spoken = np.arange(5, 19), [0] * 3 + [1] * 4 + [0] * 2 + [1] * 4 + [0]
    labels = np.where(spoken, ids, -100)
    columns = {"input_ids": "ndarray:uint16", "labels": "ndarray:int32"}
    with MDSWriter(out=str(tmp_path / "train"), columns=columns) as writer:
        for _ in range(4):
            writer.write({"input_ids": ids.astype(np.uint16), "labels": labels.astype(np.int32)})
    loader = answers(str(tmp_path), "attent_finetuning", target_responses=targets)
    (batch,) = built(loader, tokenizer).dataloader
    given = [*ids[:-1].tolist(), EOS]  # llm-foundry ends the last answer
    expected = [*labels[:-1].tolist(), EOS]
    if targets == "last":
        expected[:9] = [-100] * 9
    row = batch["attention_mask"][0].bool()
    assert batch["input_ids"][0][row].tolist() == given
    assert batch["labels"][0][row].tolist() == expected


def test_a_conversation_without_an_answer_is_named(tokenizer, tmp_path):
    columns = {"input_ids": "ndarray:uint16", "labels": "ndarray:int32"}
    ids = np.arange(5, 35)
    with MDSWriter(out=str(tmp_path / "train"), columns=columns) as writer:
        for _ in range(4):
            labels = np.where(ids < 25, -100, ids).astype(np.int32)
            writer.write({"input_ids": ids.astype(np.uint16), "labels": labels})
    loader = answers(str(tmp_path), "attent_finetuning")
    with pytest.raises(ValueError, match="expected an answer in the 16 tokens"):
        list(built(loader, tokenizer).dataloader)


@pytest.mark.parametrize("given", ["local", "remote", "streams"])
def test_the_packing_ratio_is_found_as_llm_foundry_finds_it(folders, tokenizer, tmp_path, given):
    loader = answers(folders["tokens"], "attent_finetuning", packing_ratio="auto", window=3, gap=0)
    if given == "remote":
        loader["dataset"] |= {"remote": folders["tokens"], "local": str(tmp_path)}
    elif given == "streams":
        stream = {"remote": folders["tokens"], "local": str(tmp_path), "split": "train"}
        loader["dataset"]["streams"] = {"a": stream}
        del loader["dataset"]["local"], loader["dataset"]["split"]
    assert len(list(built(loader, tokenizer).dataloader)) in range(4, 13)


def test_a_data_set_of_json_is_read(tokenizer, tmp_path):
    with JSONWriter(out=str(tmp_path / "train"), columns={"text": "str"}) as writer:
        for number in range(8):
            writer.write({"text": f"t{number + 3} t4"})
    loader = answers(str(tmp_path), "attent_text")
    del loader["dataset"]["decoder_only_format"]
    (batch, _) = built(loader, tokenizer).dataloader
    assert batch["input_ids"].shape == (4, 16)


class Lines(logging.Handler):
    """Keeps what was said. llm-foundry takes pytest's own handler away."""

    def __init__(self) -> None:
        super().__init__()
        self.said: list[str] = []

    def emit(self, record: logging.LogRecord) -> None:
        self.said.append(record.getMessage())


@pytest.fixture
def lines():
    log, handler = logging.getLogger("attent_stream"), Lines()
    log.addHandler(handler)
    yield handler.said
    log.removeHandler(handler)
    log.setLevel(logging.NOTSET)


def trained(yaml: str, given: dict) -> Any:
    """The trainer of a run of a YAML."""
    from llmfoundry.command_utils.train import train

    cfg = OmegaConf.load(YAMLS / yaml)
    for key, value in {**given, "python_log_level": "info"}.items():
        OmegaConf.update(cfg, key, value, merge=False)
    return train(cfg)


def small(folders, **more) -> dict:
    loaders = {
        f"{name}.{key}": value
        for name in ("train_loader", "eval_loader")
        for key, value in {
            "num_workers": 0,
            "prefetch_factor": None,
            "persistent_workers": False,
            "pin_memory": False,
        }.items()
    }
    return {**CPU, **loaders, "max_seq_len": 16, "tokenizer.name": folders["tokenizer"], **more}


@pytest.mark.parametrize("positions", ["learnt", "alibi"])
def test_pretraining_of_packed_text_does_what_it_does_with_ours(folders, lines, positions):
    model = {
        "init_device": "cpu",
        "d_model": 16,
        "n_heads": 2,
        "n_layers": 1,
        "vocab_size": 64,
        "loss_fn": "torch_crossentropy",
        "learned_pos_emb": positions == "learnt",
        "attn_config": {"attn_impl": "torch", "alibi": positions == "alibi"},
    }
    given = {f"model.{key}": value for key, value in model.items()}
    length = {"max_duration": "1ep", "eval_interval": "1ep", "scheduler.t_warmup": "2ba"}
    text = {"variables.data_local": folders["text"], "variables.data_remote": None}
    text |= {"train_loader.dataset.window": 4, "train_loader.dataset.gap": 1}
    trainer = trained("mpt_125m.yaml", small(folders, **given, **length, **text))
    assert trainer.state.timestamp.batch == 20
    (told,) = [line for line in lines if "packed text seen once" in line]
    assert ("pieces" in told) == (positions == "alibi") and "balance" in told


def test_answers_that_come_again_are_taught(folders, tmp_path, lines):
    from transformers import GPT2Config, GPT2LMHeadModel

    model = tmp_path / "model"
    small_gpt2 = {"vocab_size": 64, "n_positions": 16, "n_embd": 16, "n_layer": 1, "n_head": 2}
    torch.manual_seed(0)
    GPT2LMHeadModel(GPT2Config(**small_gpt2, eos_token_id=EOS, bos_token_id=2)).save_pretrained(
        model
    )
    given = {
        "variables.data": folders["tokens"],
        "variables.model_path": str(model),
        "train_loader.dataset.window": 3,
        "train_loader.dataset.gap": 0,
        "eval_interval": "3ep",
    }
    trainer = trained("finetune.yaml", small(folders, **given))
    # Six batches, of which later epochs drop some of the easy samples.
    assert 6 < trainer.state.timestamp.batch < 18
    assert any("loss" in line for line in lines)
    assert trainer.state.timestamp.epoch == 3
