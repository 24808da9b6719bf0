"""Compare the output head without logits with methods that hold them (for bench_scoring.py)."""

import ctypes
import gc
import importlib.util
import re
import statistics
import sys
import time
from collections.abc import Callable, Sequence
from pathlib import Path

import torch
from torch.nn import functional as F

from attent_stream.model import reference
from attent_stream.score.head import difference, head_scores
from attent_stream.score.matmul_dtype import matmul_dtype

CLASSES, WIDTH, TOKENS = 50257, 768, 1024
FEW_TOKENS, SLOW = 256, 0.8  # SLOW in seconds.
_STATUS, _CLEAR = Path("/proc/self/status"), Path("/proc/self/clear_refs")


def full_scores(
    hidden: torch.Tensor, weight: torch.Tensor, labels: torch.Tensor
) -> tuple[torch.Tensor, torch.Tensor]:
    """Compute loss and squared residual from all logits, the straightforward method."""
    logits = F.linear(hidden, weight)
    nll = F.cross_entropy(logits, labels, reduction="none")
    p = logits.softmax(-1, dtype=torch.float32)
    return nll, p.square().sum(-1) - 2 * p.gather(1, labels[:, None])[:, 0] + 1


def cpu_head(quick: bool, compiled: Callable[[], None] = lambda: None) -> dict:
    """Measure the head's ratios on the CPU.

    Args:
        quick: Run fewer rounds.
        compiled: Called after compilation, before any timing.
    """
    dtypes = (torch.bfloat16, torch.float32)
    with torch.no_grad():
        begin = time.perf_counter()
        for dtype in dtypes:
            head_scores(*_operands(CLASSES, WIDTH, 8, dtype, "cpu"), path="chunked")
        first = time.perf_counter() - begin
        compiled()
        gc.freeze()  # Later collections skip the imports.
        details = {str(dtype).removeprefix("torch."): _cpu_dtype(dtype, quick) for dtype in dtypes}
    worst = {
        "gemm_ratio": max(entry["gemm_ratio"] for entry in details.values()),
        "full_logits_speedup": min(entry["full_logits_speedup"] for entry in details.values()),
        "logits_memory_ratio": max(
            entry["logits_memory_ratio"] or 0.0 for entry in details.values()
        )
        or None,
    }
    return {
        **worst,
        "head": {
            "classes": CLASSES,
            "width": WIDTH,
            "tokens": TOKENS,
            "first_calls_s": round(first, 1),
            **details,
        },
    }


def _cpu_dtype(dtype: torch.dtype, quick: bool) -> dict:
    hidden, weight, labels = _operands(CLASSES, WIDTH, TOKENS, dtype, "cpu")
    everything = (hidden, weight, labels)
    # A CPU that emulates bf16 takes six seconds for a product, so --quick uses fewer tokens.
    slow_machine = quick and _product_seconds(hidden, weight) > SLOW
    tokens, rounds = (FEW_TOKENS, 1) if slow_machine else (TOKENS, 3)
    hidden, labels = hidden[:tokens], labels[:tokens]
    logits = torch.empty(tokens, CLASSES, dtype=dtype)
    calls = {
        "gemm": lambda: F.linear(hidden, weight),
        "gemm_reused": lambda: torch.mm(hidden, weight.t(), out=logits),
        "head": lambda: head_scores(hidden, weight, labels, path="chunked"),
    }
    # Several times slower, so it is timed less often.
    slow = {"full": lambda: full_scores(hidden, weight, labels)}
    scores = calls["head"]()
    some = slice(128)  # The reference takes seconds for all tokens.
    wanted = reference.token_scores(F.linear(hidden[some], weight), labels[some])
    error = difference(tuple(part[some] for part in scores), wanted)
    repeats, cpu, end = [], [], time.perf_counter() + (3 if quick else 60)
    while not repeats or time.perf_counter() < end:
        (wall, busy), (slow_wall, slow_busy) = _alternating(calls, rounds), _alternating(slow, 1)
        repeats.append(wall | slow_wall)
        cpu.append(busy | slow_busy)
    ratios = [rep["head"] / min(rep["gemm"], rep["gemm_reused"]) for rep in repeats]
    cpu_ratios = [rep["head"] / min(rep["gemm"], rep["gemm_reused"]) for rep in cpu]
    speedups = [rep["full"] / rep["head"] for rep in repeats]
    head_scores(*everything, path="chunked")  # A first call allocates memory that stays.
    extra = peak_extra_bytes(lambda: head_scores(*everything, path="chunked"))
    all_of_full = peak_extra_bytes(slow["full"])
    return {
        "gemm_ratio": round(min(ratios), 3),
        "gemm_ratio_median": round(statistics.median(ratios), 3),
        "gemm_ratio_cpu_seconds": round(statistics.median(cpu_ratios), 3),
        "full_logits_speedup": round(max(speedups), 3),
        "full_logits_speedup_median": round(statistics.median(speedups), 3),
        "logits_memory_ratio": None
        if extra is None
        else round(extra * tokens / TOKENS / logits.nbytes, 4),
        "full_memory_ratio": None if all_of_full is None else round(all_of_full / logits.nbytes, 4),
        "full_logits_speedup_cpu_seconds": round(
            statistics.median(rep["full"] / rep["head"] for rep in cpu), 3
        ),
        "ms": {name: round(1e3 * min(rep[name] for rep in repeats), 1) for name in repeats[0]},
        "cpu_ms": {name: round(1e3 * min(rep[name] for rep in cpu), 1) for name in cpu[0]},
        "largest_error": error,
        "repeats": len(repeats),
        "tokens": tokens,
        "multiplied_as": str(matmul_dtype(dtype)).removeprefix("torch."),
    }


def _product_seconds(hidden: torch.Tensor, weight: torch.Tensor) -> float:
    """Estimate the seconds of the matrix product from an eighth of the tokens."""
    some = hidden[: len(hidden) // 8]
    F.linear(some, weight[:64])  # Warms up.
    begin = time.perf_counter()
    F.linear(some, weight)
    return 8 * (time.perf_counter() - begin)


def _operands(
    classes: int, width: int, tokens: int, dtype: torch.dtype, device: str
) -> tuple[torch.Tensor, ...]:
    generator = torch.Generator(device).manual_seed(0)
    hidden = torch.randn(tokens, width, generator=generator, device=device).to(dtype)
    weight = (torch.randn(classes, width, generator=generator, device=device) * 3 / width**0.5).to(
        dtype
    )
    return hidden, weight, torch.randint(0, classes, (tokens,), generator=generator, device=device)


def _alternating(
    calls: dict[str, Callable], rounds: int
) -> tuple[dict[str, float], dict[str, float]]:
    """Return median wall seconds and processor seconds of each of the alternating calls."""
    wall: dict[str, list[float]] = {name: [] for name in calls}
    busy: dict[str, list[float]] = {name: [] for name in calls}
    for _ in range(rounds):
        for name, call in calls.items():
            begin, began = time.perf_counter(), time.process_time()
            call()
            wall[name].append(time.perf_counter() - begin)
            busy[name].append(time.process_time() - began)
    return tuple(
        {name: statistics.median(values) for name, values in times.items()}
        for times in (wall, busy)
    )


def peak_extra_bytes(call: Callable) -> int | None:
    """Return the peak growth of the process's resident memory during a call (Linux only)."""
    if not _CLEAR.exists():
        return None
    libc = ctypes.CDLL(None)
    # M_MMAP_THRESHOLD: large blocks are mapped, and unmapped when freed.
    libc.mallopt(-3, 1 << 20)
    gc.collect()
    libc.malloc_trim(0)
    _CLEAR.write_text("5")  # Resets the high-water mark.
    before = _resident("VmHWM")
    call()
    return _resident("VmHWM") - before


def _resident(name: str) -> int:
    return 1024 * int(re.search(rf"{name}:\s+(\d+)", _STATUS.read_text()).group(1))


GPU_SIZES = [
    (classes, width, tokens)
    for classes in (32000, 50257, 128256)
    for width in (768, 2048, 4096)
    for tokens in (8192, 16384, 32768, 65536)
]


def gpu_head(sizes: Sequence[tuple[int, int, int]] = GPU_SIZES, device: str = "cuda") -> dict:
    """Measure milliseconds and peak extra memory in bf16; None if out of memory.

    Args:
        sizes: Classes, width and tokens of each.
        device: A CPU has fewer paths, and no memory is told (to try the code).
    """
    name = torch.cuda.get_device_name() if device == "cuda" else device
    print(
        f"{name}; Liger {_installed('liger_kernel')}, cut-cross-entropy "
        f"{_installed('cut_cross_entropy')}",
        file=sys.stderr,
    )
    rows = []
    with torch.no_grad():
        for size in sizes:
            rows.append(_gpu_size(*size, device))
            print(rows[-1], file=sys.stderr, flush=True)
    return {"device": name, "gpu_head": rows}


def _gpu_size(classes: int, width: int, tokens: int, device: str) -> dict:
    hidden, weight, labels = _operands(classes, width, tokens, torch.bfloat16, device)
    few = min(tokens, 8192)
    buffer = torch.empty(few, classes, dtype=torch.bfloat16, device=device)

    def gemm() -> None:
        for start in range(0, tokens, few):
            torch.mm(hidden[start : start + few], weight.t(), out=buffer)

    calls = {
        "gemm": gemm,
        "chunked": lambda: head_scores(hidden, weight, labels, path="chunked"),
        "auto": lambda: head_scores(hidden, weight, labels),
        "eager": lambda: full_scores(hidden, weight, labels),
    }
    if device == "cuda":
        compiled = torch.compile(full_scores)
        calls["triton"] = lambda: head_scores(hidden, weight, labels, path="triton")
        calls["compiled"] = lambda: compiled(hidden, weight, labels)
    if device == "cuda" and _installed("liger_kernel"):
        from liger_kernel.transformers.functional import liger_fused_linear_cross_entropy

        calls["liger_loss_only"] = lambda: liger_fused_linear_cross_entropy(
            hidden, weight, labels, reduction="none"
        )
    if device == "cuda" and _installed("cut_cross_entropy"):
        from cut_cross_entropy import linear_cross_entropy

        calls["cce_loss_only"] = lambda: linear_cross_entropy(
            hidden, weight, labels, reduction="none"
        )
    measured = {name: _gpu_call(call, device) for name, call in calls.items()}
    bare = measured["gemm"]["ms"]
    for entry in measured.values():
        if entry is not None:
            entry["gemm_ratio"] = round(entry["ms"] / bare, 3)
    return {"classes": classes, "width": width, "tokens": tokens, **measured}


def _gpu_call(call: Callable, device: str) -> dict | None:
    if device != "cuda":
        call()
        begin = time.perf_counter()
        call()
        return {"ms": round(1e3 * (time.perf_counter() - begin), 3)}
    try:
        for _ in range(3):
            call()
        torch.cuda.synchronize()
        torch.cuda.reset_peak_memory_stats()
        before = torch.cuda.memory_allocated()
        times = []
        for _ in range(10):
            begin, end = torch.cuda.Event(enable_timing=True), torch.cuda.Event(enable_timing=True)
            begin.record()
            call()
            end.record()
            torch.cuda.synchronize()
            times.append(begin.elapsed_time(end))
    except torch.OutOfMemoryError:
        torch.cuda.empty_cache()
        return None
    extra = torch.cuda.max_memory_allocated() - before
    return {"ms": round(statistics.median(times), 3), "extra_mib": round(extra / 2**20, 1)}


def _installed(package: str) -> bool:
    return importlib.util.find_spec(package) is not None
