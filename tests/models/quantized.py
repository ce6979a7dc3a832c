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


def sixteen_bit_model(name: str) -> Path:
    """ONNX file of the model ``name`` with 16-bit activations and weights, by onnxruntime's quantiser."""
    return _cached(f"{name}.int16.onnx", lambda path: _quantize_16_bits(name, path))


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


def _quantize_16_bits(name: str, path: Path) -> None:
    from onnxruntime.quantization import CalibrationDataReader, QuantFormat, QuantType, quantize_static
    from onnxruntime.quantization.shape_inference import quant_pre_process

    class Samples(CalibrationDataReader):  # type: ignore[misc]
        def __init__(self) -> None:
            self._rest = iter(range(2))  # onnxruntime keeps all tensors of all samples

        def get_next(self) -> dict[str, Any] | None:
            seed = next(self._rest, None)
            return None if seed is None else zoo.inputs(name, seed)

    prepared = path.with_name("prepared.onnx")
    quant_pre_process(zoo.get(name), prepared, skip_symbolic_shape=True)
    quantize_static(
        prepared,
        path,
        Samples(),
        quant_format=QuantFormat.QDQ,
        per_channel=True,
        activation_type=QuantType.QInt16,
        weight_type=QuantType.QInt16,
        extra_options={"ActivationSymmetric": True},
    )
    prepared.unlink()


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
