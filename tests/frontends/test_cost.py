"""The work that ``inspect`` counts for PyTorch modules is what fvcore counts on the modules themselves."""

from __future__ import annotations

import logging
from collections import Counter
from typing import Any

import pytest

from tvm_ipu.frontends.loaders import LoadOptions
from tvm_ipu.inspection import inspect_model

pytestmark = [
    pytest.mark.filterwarnings("ignore::DeprecationWarning"),
    pytest.mark.filterwarnings("ignore::FutureWarning"),
    pytest.mark.filterwarnings("ignore::UserWarning"),
]
PRODUCTS = ("conv", "linear", "addmm", "matmul", "bmm", "einsum", "scaled_dot_product_attention")
"""Operators that fvcore counts multiply-accumulates of; it calls them FLOPs."""


def make(name: str) -> tuple[Any, Any]:
    import torch

    from tests.frontends.torch_zoo import torchvision_models

    if name != "transformer":
        return getattr(torchvision_models(), name)().eval(), torch.randn(1, 3, 64, 64)

    class Block(torch.nn.Module):
        """Attention and a perceptron, written out, since fvcore follows no fused attention."""

        def __init__(self) -> None:
            super().__init__()
            self.norm1, self.norm2 = torch.nn.LayerNorm(64), torch.nn.LayerNorm(64)
            self.qkv, self.out = torch.nn.Linear(64, 192), torch.nn.Linear(64, 64)
            self.up, self.down = torch.nn.Linear(64, 256), torch.nn.Linear(256, 64)

        def forward(self, x: torch.Tensor) -> torch.Tensor:
            q, k, v = self.qkv(self.norm1(x)).view(2, 20, 3, 4, 16).permute(2, 0, 3, 1, 4)
            scores = torch.softmax(torch.matmul(q, k.transpose(-1, -2)) / 4, -1)
            x = x + self.out(torch.matmul(scores, v).transpose(1, 2).reshape(2, 20, 64))
            return x + self.down(torch.nn.functional.gelu(self.up(self.norm2(x))))

    return Block().eval(), torch.randn(2, 20, 64)


@pytest.mark.parametrize("name", ["resnet18", "mobilenet_v3_small", "transformer"])
def test_work_is_that_of_fvcore(name: str) -> None:
    from fvcore.nn import FlopCountAnalysis

    logging.getLogger("fvcore").setLevel(logging.ERROR)
    module, example = make(name)
    analysis = FlopCountAnalysis(module, example).unsupported_ops_warnings(False)
    analysis.uncalled_modules_warnings(False)
    counted: Counter[str] = analysis.by_operator()
    summary = inspect_model(module, loading=LoadOptions(example_input=example))
    assert summary.macs == sum(counted[kind] for kind in PRODUCTS)
    statistics = [b for b in module.buffers() if b.dim() > 0]
    weights = sum(weight.numel() for weight in [*module.parameters(), *statistics])
    assert summary.parameters == weights
    assert summary.parameter_bytes == 4 * weights
