"""8-bit versions of the models of ``zoo``: NNCF's post-training quantisation, kept in its cache, and our own.

quantized.onnx_model("resnet50")       # ONNX with QuantizeLinear and DequantizeLinear
quantized.openvino_model("resnet50")   # OpenVINO IR, as OpenVINO itself likes it best
"""

from __future__ import annotations

import logging
import tempfile
from collections.abc import Callable, Iterable, Sequence
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


def by_nncf(model: Any, samples: Sequence[dict[str, Any]], transformer: bool = False) -> bytes:
    """An ONNX model quantised by NNCF's defaults, or by its scheme for transformers."""
    import nncf

    nncf.set_log_level(logging.ERROR)
    kind = {"model_type": nncf.ModelType.TRANSFORMER} if transformer else {}
    found = nncf.quantize(model, nncf.Dataset(samples), subset_size=len(samples), **kind)
    return bytes(found.SerializeToString())


def by_onnxruntime(model: Any, samples: Sequence[dict[str, Any]], method: str = "MinMax") -> bytes:
    """An ONNX model quantised by onnxruntime, each output channel of the weights with a scale.

    Args:
        model: Float model.
        samples: By input.
        method: Name of one of onnxruntime's ways to choose ranges.
    """
    from onnxruntime.quantization import CalibrationMethod, quantize_static

    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "quantized.onnx"
        kind = CalibrationMethod[method]
        quantize_static(model, path, _reader(samples), per_channel=True, calibrate_method=kind)
        return path.read_bytes()


def _reader(samples: Iterable[dict[str, Any]]) -> Any:
    """Samples as onnxruntime takes them."""
    from onnxruntime.quantization import CalibrationDataReader

    class Samples(CalibrationDataReader):  # type: ignore[misc]
        def __init__(self) -> None:
            self._rest = iter(samples)

        def get_next(self) -> dict[str, Any] | None:
            return next(self._rest, None)

    return Samples()


def quantize_here(name: str, path: Path) -> Path:
    """The model ``name`` calibrated by this project, at level L2 and on the same samples, as an ONNX file."""
    from tvm_ipu.frontends.loaders import LoadOptions
    from tvm_ipu.frontends.onnx.plain import graph_to_onnx, load_graph
    from tvm_ipu.quantize.calibrate import CalibrationOptions, calibrate
    from tvm_ipu.simulation import compile_runner

    graph = load_graph(zoo.get(name), LoadOptions(zoo.shapes(name)))
    fixed, _ = calibrate(
        graph,
        lambda: (zoo.inputs(name, seed) for seed in range(CALIBRATION_SAMPLES)),
        lambda part: compile_runner(part, 2),
        CalibrationOptions("L2"),
    )
    path.write_bytes(graph_to_onnx(fixed))
    return path


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
    from onnxruntime.quantization import QuantFormat, QuantType, quantize_static
    from onnxruntime.quantization.shape_inference import quant_pre_process

    samples = [zoo.inputs(name, seed) for seed in range(2)]  # onnxruntime keeps all tensors of all samples
    prepared = path.with_name("prepared.onnx")
    quant_pre_process(zoo.get(name), prepared, skip_symbolic_shape=True)
    quantize_static(
        prepared,
        path,
        _reader(samples),
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
