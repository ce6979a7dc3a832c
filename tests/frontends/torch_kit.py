"""What PyTorch and onnxruntime give, and arrays to give them."""

from __future__ import annotations

import numpy as np
import onnxruntime
import pytest

torch = pytest.importorskip("torch")
from torch import nn  # noqa: E402

ONE, TWO = np.float32([[1, 2, 3]]), np.float32([[4, 5, 6]])


def reference(module: nn.Module, *args, **kwargs):
    """What PyTorch gives, in evaluation mode."""
    training = module.training
    with torch.no_grad():
        found = module.eval()(*args, **kwargs)
    module.train(training)
    return found


def by_onnxruntime(model, feeds):
    session = onnxruntime.InferenceSession(model.SerializeToString(), providers=["CPUExecutionProvider"])
    names = [output.name for output in session.get_outputs()]
    return dict(zip(names, session.run(names, feeds), strict=True))


def shape_of(info):
    return [dim.dim_value or -1 for dim in info.type.tensor_type.shape.dim]
