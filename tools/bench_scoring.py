"""What scoring costs: ratios, each from one run that alternates its contestants.

    python tools/bench_scoring.py [--quick] [--only SECTION] [--out tools/results/FILE.json]
    python tools/bench_scoring.py --gpu [--out tools/results/FILE.json]

Sections, each a function that returns numbers for the result (``SECTIONS``):

head      The output head without its logits, V 50,257, D 768, 1,024 tokens, bf16 and fp32, all CPU
          threads. Ratios: time over that of the bare matrix product (``gemm_ratio``, the faster of
          a fresh and a reused result); time of full logits with
          ``F.cross_entropy(reduction="none")`` and a residual pass over it
          (``full_logits_speedup``); peak extra memory over the logits' (``logits_memory_ratio``).
          Each is the worse dtype's. Times are medians of three (of full logits one), ratios those
          of the best repeat. Where others use the machine, the same ratios of processor seconds
          (``..._cpu_seconds``, medians over all repeats) tell more.
step      A taught step at keep 0.5, its 2 B candidates scored after one layer on an eighth of the
          tokens, over a plain step of the same B samples (``taught_step_ratio``), in fp32.
frontier  What each way of scoring with less costs and how it ranks candidates:
          ``bench_fidelity.py`` on Python's standard library and drawn images (run that itself for
          other data). Without ``--quick`` about 25 minutes.

``--gpu`` measures the head on a CUDA device instead: vocabularies of 32k, 50k and 128k, widths of
768, 2,048 and 4,096, 8k to 64k tokens in bf16, against eager and compiled full logits, Liger and
cut-cross-entropy where installed.

The last line is one JSON object.
"""

import argparse
import json
import os
import sys
import threading
import time
from collections.abc import Callable
from pathlib import Path

os.environ.setdefault("OMP_WAIT_POLICY", "passive")  # before torch: a thread that waits is not busy
# A CPU's kernels come one by one: no helpers that import torch
os.environ.setdefault("TORCHINDUCTOR_COMPILE_THREADS", "1")

import torch
from bench_scoring_head import cpu_head, gpu_head

# About when the process began: imports are a part of what a user waits for
BEGIN = time.perf_counter() - time.process_time()


def head(quick: bool) -> dict:
    """The others' libraries are read from disk while a compiler has its turn."""
    libraries = threading.Thread(target=_import_others)
    libraries.start()
    return cpu_head(quick, compiled=libraries.join)


def _import_others() -> None:
    from bench_fidelity import SIZES, language_model

    # Composer's first model imports every causal LM of transformers
    language_model(SIZES["quick"]["lm"])


def step(quick: bool) -> dict:
    from bench_scoring_step import taught_step

    return taught_step(quick)


def frontier(quick: bool) -> dict:
    from bench_fidelity import frontier

    return frontier(quick)


SECTIONS: dict[str, Callable[[bool], dict]] = {"head": head, "step": step, "frontier": frontier}


def main() -> None:
    """Run and print."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--quick", action="store_true", help="fewer rounds: under 50 s")
    parser.add_argument("--gpu", action="store_true", help="the head's sizes on a CUDA device")
    parser.add_argument("--only", choices=SECTIONS, help="one section")
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
