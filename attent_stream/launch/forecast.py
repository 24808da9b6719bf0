"""What a run would do, told before it is started."""

from typing import Any

from attent_stream.launch.build import check_machine
from attent_stream.launch.config import TrainConfig
from attent_stream.launch.config_check import join
from attent_stream.launch.config_sections import ModelConfig
from attent_stream.launch.data import build_train, device_batch_size
from attent_stream.launch.models import build_tokenizer, hf_config
from attent_stream.launch.parts import TEACHERS, find_algorithm, make


def forecast(config: TrainConfig) -> list[str]:
    """Say what data is there, and what AtteNT would do, without a model and without training.

    Indices are read, but samples only if ``max_duration`` is in tokens, or to see how text is
    padded. All ranks call this together.

    Raises:
        ConfigError: The data is not there, or cannot be read with these settings.
    """
    from composer import Time
    from composer.utils import dist

    from attent_stream.base.duration import total_span
    from attent_stream.fit.clock import passes

    ranks = dist.get_world_size()
    check_machine(config, ranks)
    spec = build_train(
        config.train_loader,
        device_batch_size(config.global_train_batch_size, ranks, "global_train_batch_size"),
        tokenizer=build_tokenizer(config.tokenizer),
        seed=config.seed,
        on_gpu=False,
    )
    loader = spec.dataloader
    total = total_span(Time.from_input(config.max_duration, "ep"))
    length = passes(total, loader)
    lines = _of_data(loader, config)
    if length is not None:
        batches = length * loader.plain_batches
        lines.append(
            f"training: {config.max_duration}, as long as {batches:,.0f} plain batches "
            f"({length:.2f} epochs)"
        )
    else:
        lines.append(f"training: {config.max_duration}; how many epochs that is is not known")
    teacher = next((name for name in config.algorithms if name in TEACHERS), None)
    if teacher is None:
        return [*lines, "no AtteNT: samples are streamed plainly"]
    made = make(find_algorithm(teacher), config.algorithms[teacher], join("algorithms", teacher))
    return lines + _of_teaching(made.settings, loader, length, config)


def _of_data(loader: Any, config: TrainConfig) -> list[str]:
    dataset = loader.dataset
    size = dataset.shards.raw_size()
    lines = [
        f"data: {dataset.num_samples:,} samples in {dataset.num_shards:,} shards, "
        f"{size / 1e6:,.1f} MB"
    ]
    names = list(config.train_loader.dataset.streams or {})
    if len(names) == len(dataset.samples_per_stream) > 1:
        each = zip(names, dataset.samples_per_stream, strict=True)
        lines.append("streams: " + ", ".join(f"{name} {count:,}" for name, count in each))
    windows = -(-loader.plain_batches // dataset.window)
    lines.append(
        f"epoch: {dataset.epoch_size:,} samples, {loader.plain_batches:,} batches of "
        f"{dataset.row_size}, {windows:,} windows of {dataset.window} batches"
    )
    return lines


def _learns_positions(model: ModelConfig) -> bool:
    """Whether the model would learn absolute positions, found out without its memory."""
    if model.name != "hf_causal_lm" or model.lora is not None:
        return False
    import torch
    from transformers import AutoModelForCausalLM

    from attent_stream.model.traits import learns_positions

    with torch.device("meta"):
        return learns_positions(AutoModelForCausalLM.from_config(hf_config(model)))


def _of_teaching(
    settings: Any, loader: Any, length: float | None, config: TrainConfig
) -> list[str]:
    from attent_stream.fit.arrange_faults import Padding, padding
    from attent_stream.fit.clock import single_pass
    from attent_stream.fit.run import Facts
    from attent_stream.memory.ledger import sample_bytes
    from attent_stream.memory.remember import NEVER

    text = config.model.name == "hf_causal_lm"
    padded = padding(loader) if text else Padding()
    facts = Facts(
        text=text,
        once=single_pass(length, loader),
        passes=length,
        packed=loader.packed,
        padded=padded.longest,
        trims=padded.end,
        positions=_learns_positions(config.model),
        adapters=config.model.lora is not None,
    )
    run = settings.of_run(facts)
    lines = [f"AtteNT: {run.told}"]
    if run.by_target is not None:
        lines.append("target: where the stream is like it, nothing is dropped; a run finds out")
    if run.remember.when != NEVER:
        count = loader.dataset.num_samples
        need = min(sample_bytes(count, ages=False), run.remember.bytes)
        lines.append(f"remembered scores: {need / 1e6:,.1f} MB of each node")
    if run.scored and run.by_target is None:
        cost = (1 + 3 * run.teacher.keep.start) / 3
        lines.append(
            f"scoring: with a whole forward a candidate, training costs {cost:.2f} of training on "
            "everything"
        )
    return lines
