"""Other runtimes, set up for a fair comparison: the same threads, one stream, float32 arithmetic kept."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

from tvm_ipu.base.errors import OptionError, ToolError
from tvm_ipu.bench.compare import Contender
from tvm_ipu.bench.data import Array

Arrays = Mapping[str, Array]


def open_onnxruntime(model: Path, inputs: Arrays, threads: int) -> Contender:
    """The model in ONNX Runtime on ``threads`` threads, operators one after another.

    Raises:
        ToolError: onnxruntime is not installed, or does not take the model.
    """
    try:
        import onnxruntime
    except ImportError as err:
        raise _not_installed("onnxruntime") from err
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = threads
    options.inter_op_num_threads = 1
    options.execution_mode = onnxruntime.ExecutionMode.ORT_SEQUENTIAL
    # Its threads would otherwise spin on while the other contenders run.
    options.add_session_config_entry("session.force_spinning_stop", "1")
    try:
        session = onnxruntime.InferenceSession(str(model), options, providers=["CPUExecutionProvider"])
    except Exception as err:
        raise ToolError(f"onnxruntime does not take {model}: {err}") from err
    feeds = _select([value.name for value in session.get_inputs()], inputs, model)
    return Contender("onnxruntime", onnxruntime.__version__, lambda: session.run(None, feeds))


def open_openvino(model: Path, inputs: Arrays, threads: int) -> Contender:
    """The model in OpenVINO on ``threads`` threads, for latency, without lowering its precision.

    Raises:
        ToolError: openvino is not installed, or does not take the model.
    """
    try:
        import openvino
    except ImportError as err:
        raise _not_installed("openvino") from err
    settings = {
        "PERFORMANCE_HINT": "LATENCY",
        "INFERENCE_NUM_THREADS": str(threads),
        "NUM_STREAMS": "1",
        "INFERENCE_PRECISION_HINT": "f32",
    }
    try:
        network = openvino.Core().read_model(str(model))
        feeds = _select([value.any_name for value in network.inputs], inputs, model)
        network.reshape({name: list(array.shape) for name, array in feeds.items()})
        request = openvino.compile_model(network, "CPU", settings).create_infer_request()
    except RuntimeError as err:
        raise ToolError(f"openvino does not take {model}: {err}") from err
    outputs = range(len(network.outputs))

    def run() -> list[Array]:
        request.infer(feeds)
        return [request.get_output_tensor(i).data for i in outputs]

    return Contender("openvino", openvino.get_version(), run)


_PEERS = {"onnxruntime": open_onnxruntime, "openvino": open_openvino}


def open_peer(name: str, model: Path, inputs: Arrays, threads: int) -> Contender:
    """The model in the runtime called ``name`` (``onnxruntime`` or ``openvino``).

    Args:
        name: Which runtime.
        model: An ONNX file.
        inputs: Arrays by input name; their shapes fix the model's dynamic dimensions.
        threads: Threads that the runtime may use.

    Raises:
        OptionError: No such runtime.
        ToolError: It is not installed, or does not take the model.
    """
    if name not in _PEERS:
        raise OptionError(f"--against: unknown runtime '{name}'", f"known are {', '.join(_PEERS)}")
    return _PEERS[name](model, inputs, threads)


def _select(names: list[str], inputs: Arrays, model: Path) -> dict[str, Array]:
    """The arrays that the peer's inputs called ``names`` get."""
    missing = [name for name in names if name not in inputs]
    if missing:
        raise ToolError(
            f"{model} has an input '{missing[0]}' that the image lacks", "was it made from this model?"
        )
    return {name: inputs[name] for name in names}


def _not_installed(package: str) -> ToolError:
    return ToolError(
        f"--against: the package {package} is not installed", f"install it with: pip install {package}"
    )
