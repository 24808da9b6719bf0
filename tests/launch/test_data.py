"""Loaders: batch sizes, token counts, folders and columns."""

import pytest
import torch
from tiny_runs import write_corpus

from attent_stream.launch.config_check import ConfigError
from attent_stream.launch.config_sections import (
    EvalLoaderConfig,
    StreamConfig,
    StreamsConfig,
    TeachingConfig,
    TrainLoaderConfig,
)
from attent_stream.launch.data import (
    build_collate,
    build_eval,
    check_folders,
    count_tokens,
    dataset_arguments,
    device_batch_size,
    loader_arguments,
)


def test_device_batch_size():
    assert device_batch_size(8, 4, "k") == 2
    with pytest.raises(ValueError, match=r"^k: expected a multiple of the 3 ranks, got 8$"):
        device_batch_size(8, 3, "k")


def test_count_tokens_leaves_padding_out():
    ids = torch.zeros(2, 5, dtype=torch.int64)
    mask = torch.tensor([[1, 1, 1, 0, 0], [1, 1, 1, 1, 1]])
    labels = torch.where(mask.bool(), 3, -100)
    labels[0, 0] = -100
    assert count_tokens({"input_ids": ids, "attention_mask": mask, "labels": labels}) == {
        "total": 8,
        "loss_generating": 7,
    }
    assert count_tokens({"input_ids": ids}) == {"total": 10, "loss_generating": 10}
    assert count_tokens((torch.zeros(2, 3), torch.zeros(2))) == 0


def test_a_missing_folder_is_named_by_the_key_of_its_stream(tmp_path):
    (tmp_path / "a" / "train").mkdir(parents=True)
    streams = {"a": {"local": str(tmp_path / "a")}, "b": {"local": str(tmp_path / "b")}}
    for name, expected in (("a", "has no index.json"), ("b", "does not exist")):
        section = StreamsConfig(streams={name: StreamConfig(**streams[name])}, split="train")
        with pytest.raises(ConfigError, match=rf"^d\.streams\.{name}\.local: .*{expected}"):
            check_folders(section, "d")
    check_folders(StreamsConfig(remote="s3://bucket/x", split="train"), "d")


def test_a_dataset_gets_only_the_given_keys():
    section = StreamsConfig(local="x", shuffle=True, max_seq_len=8)
    assert dataset_arguments(section, 4) == {"local": "x", "shuffle": True, "batch_size": 4}


@pytest.mark.parametrize(("workers", "context"), [(0, None), (2, "spawn")])
def test_settings_of_workers_need_workers(workers, context):
    loader = TrainLoaderConfig(
        name="text",
        dataset=TeachingConfig(local="x"),
        num_workers=workers,
        multiprocessing_context="spawn",
    )
    made = loader_arguments(loader, on_gpu=True)
    assert made["pin_memory"] and made["persistent_workers"] == (workers > 0)
    assert made.get("multiprocessing_context") == context and ("timeout" in made) == (workers > 0)


def test_a_mask_needs_a_tokenizer():
    loader = EvalLoaderConfig(name="masked_text", dataset=StreamsConfig(local="x"))
    with pytest.raises(ConfigError, match=r"^p\.name: masked_text needs a tokenizer"):
        build_collate(loader, "p", None, 1, training=False)


def test_a_column_that_the_corpus_lacks_is_named_before_any_batch(tmp_path):
    dataset = StreamsConfig(local=write_corpus(tmp_path), split="eval")
    loader = EvalLoaderConfig(name="text", dataset=dataset, collate={"column": "ids"})
    given = {"path": "e", "tokenizer": None, "seed": 1, "on_gpu": False, "metrics": []}
    with pytest.raises(ConfigError, match=r"^e\.collate: there is no column 'ids', only 'tokens'"):
        build_eval(loader, 4, **given)
