"""8-bit versions of the models of ``zoo``, made by NNCF's post-training quantisation and kept in its cache.

quantized.onnx_model("resnet50")       # ONNX with QuantizeLinear and DequantizeLinear
quantized.openvino_model("resnet50")   # OpenVINO IR, as OpenVINO itself likes it best
"""

from __future__ import annotations

import logging
import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

from tests.models import zoo

CALIBRATION_SAMPLES = 8
_TRANSFORMERS = ("bert_base", "minilm_l6")


def onnx_model(name: str) -> Path:
    """ONNX file of the quantised model ``name``; calibrated the first time."""
    return _cached(f"{name}.int8.onnx", lambda path: _quantize_onnx(name, path))


def openvino_model(name: str) -> Path:
    """IR file (``.xml``, weights beside it) of the quantised model ``name``; calibrated the first time."""
    return _cached(f"{name}.int8.xml", lambda path: _quantize_openvino(name, path))


def _cached(file: str, make: Callable[[Path], None]) -> Path:
    path = zoo.cache_dir() / file
    if not path.exists():
        with tempfile.TemporaryDirectory(dir=path.parent) as temporary:
            made = Path(temporary) / file
            make(made)
            for part in sorted(made.parent.iterdir()):  # .bin before .xml
                part.replace(path.parent / part.name)
    return path


def _quantize_onnx(name: str, path: Path) -> None:
    import onnx

    model = onnx.shape_inference.infer_shapes(onnx.load(zoo.get(name)))
    onnx.save(_quantize(name, model), path)


def _quantize_openvino(name: str, path: Path) -> None:
    import openvino

    network = openvino.Core().read_model(str(zoo.get(name)))
    network.reshape({key: list(shape) for key, shape in zoo.shapes(name).items()})
    openvino.save_model(_quantize(name, network), str(path), compress_to_fp16=False)


def _quantize(name: str, model: Any) -> Any:
    import nncf

    nncf.set_log_level(logging.ERROR)
    samples = [zoo.inputs(name, seed) for seed in range(CALIBRATION_SAMPLES)]
    kind = {"model_type": nncf.ModelType.TRANSFORMER} if name in _TRANSFORMERS else {}
    if not kind:
        kind = {"preset": nncf.QuantizationPreset.MIXED}
    return nncf.quantize(model, nncf.Dataset(samples), subset_size=CALIBRATION_SAMPLES, **kind)
