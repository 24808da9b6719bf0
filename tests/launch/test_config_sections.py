"""The sections' keys are Streaming's."""

import dataclasses
import inspect
import typing

from attent_stream.launch.config_sections import StreamConfig, TeachingConfig


def test_dataset_keys_are_those_of_streaming():
    from streaming import Stream, StreamingDataset

    unsafe_or_derived = {"self", "batch_size", "allow_unsafe_types", "stream_name", "stream_config"}
    theirs = set(inspect.signature(StreamingDataset.__init__).parameters) - unsafe_or_derived
    ours = {field.name for field in dataclasses.fields(TeachingConfig)}
    assert (
        ours - theirs == {"order", "window", "gap", "require_teacher", "max_seq_len"}
        and theirs <= ours
    )
    assert {field.name for field in dataclasses.fields(StreamConfig)} == set(
        inspect.signature(Stream).parameters
    )


def test_shuffle_and_batching_names_are_those_of_streaming():
    from streaming.base.batching import batching_methods
    from streaming.base.shuffle import algos

    hints = typing.get_type_hints(TeachingConfig)
    for name, table in (("shuffle_algo", algos), ("batching_method", batching_methods)):
        (literal,) = [hint for hint in typing.get_args(hints[name]) if hint is not type(None)]
        assert set(typing.get_args(literal)) == set(table)
