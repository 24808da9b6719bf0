"""Operands of an output head and their scores in float64.

``python head_cases.py`` checks the Triton kernel in Triton's interpreter, which must be chosen
before Triton is imported.
"""

import os
import sys
from dataclasses import dataclass

import torch

IGNORED = -100


@dataclass(frozen=True, kw_only=True)
class Case:
    """A head's operands."""

    tokens: int
    width: int
    classes: int
    dtype: torch.dtype = torch.float32
    bias: bool = False
    softcap: float | None = None
    scale: float = 1.0
    seed: int = 0

    def operands(self) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor, dict]:
        """hidden, weight, labels (a third ignored) and the keywords of ``head_scores``."""
        generator = torch.Generator().manual_seed(self.seed)
        hidden = torch.randn(self.tokens, self.width, generator=generator)
        weight = torch.randn(self.classes, self.width, generator=generator) * 2 / self.width**0.5
        bias = torch.randn(self.classes, generator=generator).to(self.dtype) if self.bias else None
        labels = torch.randint(0, self.classes, (self.tokens,), generator=generator)
        labels[1::3] = IGNORED
        settings = {"bias": bias, "softcap": self.softcap, "scale": self.scale}
        return hidden.to(self.dtype), weight.to(self.dtype), labels, settings

    def exact(self) -> tuple[torch.Tensor, torch.Tensor]:
        """The scores from all logits in float64, by the plain formulas."""
        hidden, weight, labels, settings = self.operands()
        z = hidden.double() @ weight.double().T
        z = z if settings["bias"] is None else z + settings["bias"].double()
        z = z * self.scale
        z = z if self.softcap is None else self.softcap * torch.tanh(z / self.softcap)
        valid = labels != IGNORED
        index = torch.where(valid, labels, 0)
        nll = -z.log_softmax(-1).gather(1, index[:, None])[:, 0]
        onehot = torch.nn.functional.one_hot(index, self.classes)
        return nll * valid, (z.softmax(-1) - onehot).square().sum(-1) * valid


SHAPES = [(1, 8, 3), (5, 7, 11), (33, 16, 257), (70, 24, 130), (2, 8, 1)]
HEADS = [
    {},
    {"bias": True},
    {"softcap": 1.5},
    {"scale": 0.3},
    {"bias": True, "scale": 2.0, "softcap": 4.0},
]
CASES = [
    Case(tokens=tokens, width=width, classes=classes, dtype=dtype, **head)
    for tokens, width, classes in SHAPES
    for head in HEADS
    for dtype in (torch.float32, torch.bfloat16, torch.float16)
]
# Logits are rounded to their dtype
TOLERANCE = {torch.float32: 3e-6, torch.bfloat16: 3e-2, torch.float16: 4e-3}


def worst(got: tuple[torch.Tensor, torch.Tensor], want: tuple[torch.Tensor, torch.Tensor]) -> float:
    """The largest difference, relative where values exceed 1."""
    return max(
        ((a.double() - b).abs() / b.abs().clamp(min=1)).max().item()
        for a, b in zip(got, want, strict=True)
    )


def check_triton() -> None:
    """Check the kernel on every case, and on values that are not finite."""
    from attent_stream.score import triton_head
    from attent_stream.score.head import head_scores

    assert triton_head.INTERPRETED
    for case in CASES:
        hidden, weight, labels, settings = case.operands()
        for compact in (False, True):
            got = head_scores(hidden, weight, labels, path="triton", compact=compact, **settings)
            assert worst(got, case.exact()) < 3e-6, case  # its logits are not rounded
    # Several slices of the vocabulary, several steps of the width
    wide = Case(tokens=3, width=200, classes=5000, bias=True)
    hidden, weight, labels, settings = wide.operands()
    assert triton_head._slices(3, 5000, hidden.device)[0] > 1
    got = head_scores(hidden, weight, labels, path="triton", **settings)
    assert worst(got, wide.exact()) < 3e-6
    for poison in (float("nan"), float("inf")):
        spoilt = hidden.clone()
        spoilt[2, 3] = poison
        nll, residual_sq = head_scores(spoilt, weight, labels, path="triton", **settings)
        assert not nll[2].isfinite() and not residual_sq[2].isfinite()
        assert (
            worst((nll[:2], residual_sq[:2]), tuple(values[:2] for values in wide.exact())) < 3e-6
        )
    masked = settings["bias"].clone()
    masked[labels[2] + 1 :] = float("-inf")  # whole blocks without any class
    nll, residual_sq = head_scores(hidden, weight, labels, path="triton", bias=masked)
    want = head_scores(hidden, weight, labels, path="reference", bias=masked)
    assert worst((nll[2:], residual_sq[2:]), tuple(values[2:].double() for values in want)) < 3e-6
    strided = torch.cat([hidden, hidden], dim=1).t().contiguous().t()
    got = head_scores(
        strided[:, :200], weight.t().contiguous().t(), labels, path="triton", **settings
    )
    assert worst(got, wide.exact()) < 3e-6


def compile_triton() -> None:
    """Compile the kernel for the tensor cores of the A100 and the H100, without such a device."""
    import triton
    from triton.backends.compiler import GPUTarget

    from attent_stream.score import triton_head

    kernel = triton_head._kernel
    config = triton_head._CONFIGS[0]
    for arch, instruction in ((80, "mma.sync"), (90, "wgmma.mma_async")):
        constants = {"HAS_BIAS": True, "HAS_CAP": True, "PRECISION": "ieee", **config.kwargs}
        types = dict.fromkeys(("hidden", "weight", "bias"), "*bf16") | {
            "labels": "*i32",
            "scale": "fp32",
            "softcap": "fp32",
        }
        signature = {
            name: "constexpr"
            if name in constants
            else types.get(name, "*fp32" if name.endswith("_out") else "i32")
            for name in kernel.arg_names
        }
        aligned = [
            n
            for n, kind in signature.items()
            if kind[0] == "*" or n.endswith("_stride") or n == "width"
        ]
        source = triton.compiler.ASTSource(
            fn=kernel,
            signature=signature,
            constexprs={
                (kernel.arg_names.index(name),): value for name, value in constants.items()
            },
            attrs={(kernel.arg_names.index(name),): [["tt.divisibility", 16]] for name in aligned},
        )
        options = {"num_warps": config.num_warps, "num_stages": config.num_stages}
        compiled = triton.compile(source, target=GPUTarget("cuda", arch, 32), options=options)
        assert instruction in compiled.asm["ptx"]
        assert compiled.metadata.shared <= 160 * 1024  # the limit of a block on both


if __name__ == "__main__":
    {"interpret": check_triton, "compile": compile_triton}[sys.argv[1]]()
    print("ok", os.environ.get("TRITON_INTERPRET"))
