"""Measure the cost of scoring as ratios of calls that alternate in one process.

    python tools/bench_scoring.py [--quick] [--only SECTION] [--out tools/results/FILE.json]
    python tools/bench_scoring.py --gpu [--out tools/results/FILE.json]

Sections:

head      The output head without logits: V 50,257, D 768, 1,024 tokens, bf16 and fp32, all CPU
          threads. ``gemm_ratio`` is its time relative to the matrix product alone (the faster of
          a fresh and a reused result). ``full_logits_speedup`` is the time of full logits with
          ``F.cross_entropy(reduction="none")`` and a residual pass, relative to the head.
          ``logits_memory_ratio`` is its peak extra memory relative to the logits. Each is the
          worse dtype's. Times are medians of three (one for full logits), and ratios are the best
          repeat's. On a busy machine the ratios of processor seconds (``..._cpu_seconds``, medians
          of all repeats) are more reliable.
step      ``taught_step_ratio``: a taught step with keep 0.5, with 2 B candidates scored after one
          layer on an eighth of the tokens, relative to a plain step of B samples, in fp32.
frontier  Cost and ranking of cheap scores, by ``bench_fidelity.py`` on Python's standard library
          and drawn images. It takes about 25 minutes without ``--quick``.

``--gpu`` measures the head on a CUDA device: vocabularies of 32k, 50k and 128k, widths of 768,
2,048 and 4,096, and 8k to 64k tokens in bf16, compared with eager and compiled full logits, and
with Liger and cut-cross-entropy if installed.

The last line is a JSON object.
"""

import argparse
import json
import os
import sys
import threading
import time
from collections.abc import Callable
from pathlib import Path

os.environ.setdefault("OMP_WAIT_POLICY", "passive")  # Before torch: threads must not spin.
# CPU kernels compile one by one, without helper processes that import torch.
os.environ.setdefault("TORCHINDUCTOR_COMPILE_THREADS", "1")

import torch
from bench_scoring_head import cpu_head, gpu_head

# About the start of the process, because a user also waits for imports.
BEGIN = time.perf_counter() - time.process_time()


def head(quick: bool) -> dict:
    """Measure the head, and import other sections' libraries while it compiles."""
    libraries = threading.Thread(target=_import_others)
    libraries.start()
    return cpu_head(quick, compiled=libraries.join)


def _import_others() -> None:
    from bench_fidelity import SIZES, language_model

    # Composer's first model imports every causal LM of transformers.
    language_model(SIZES["quick"]["lm"])


def step(quick: bool) -> dict:
    from bench_scoring_step import taught_step

    return taught_step(quick)


def frontier(quick: bool) -> dict:
    from bench_fidelity import frontier

    return frontier(quick)


SECTIONS: dict[str, Callable[[bool], dict]] = {"head": head, "step": step, "frontier": frontier}


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--quick", action="store_true", help="fewer rounds: under 50 s")
    parser.add_argument("--gpu", action="store_true", help="measure the head on a CUDA device")
    parser.add_argument("--only", choices=SECTIONS, help="run one section")
    parser.add_argument("--out", type=Path, help="also write the JSON object here")
    args = parser.parse_args()
    result: dict = {
        "torch": torch.__version__,
        "threads": torch.get_num_threads(),
        "quick": args.quick,
    }
    if args.gpu:
        result |= gpu_head()
    else:
        for name, section in SECTIONS.items():
            if args.only in (None, name):
                result |= section(args.quick)
                print(json.dumps(result), file=sys.stderr, flush=True)
    result["seconds"] = round(time.perf_counter() - BEGIN, 1)
    if args.out:
        args.out.write_text(json.dumps(result, indent=1) + "\n")
    print(json.dumps(result))


if __name__ == "__main__":
    main()
