"""Other runtimes, set up for a fair comparison: the same threads, one stream, precision as asked for."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

from tvm_ipu.base.errors import OptionError, ToolError
from tvm_ipu.bench.compare import Contender
from tvm_ipu.bench.data import Array

Arrays = Mapping[str, Array]


def open_onnxruntime(model: Path, inputs: Arrays, threads: int, precision: str = "f32") -> Contender:
    """The model in ONNX Runtime on ``threads`` threads, operators one after another.

    Args:
        model: An ONNX file; a quantised one runs as integers.
        inputs: Arrays by input name.
        threads: Threads that it may use.
        precision: Only ``f32``: it has no lower one on CPUs.

    Raises:
        OptionError: Another precision.
        ToolError: onnxruntime is not installed, or does not take the model.
    """
    if precision != "f32":
        raise OptionError(f"--against: onnxruntime has no precision '{precision}'", "allowed is f32")
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
        feeds = _select([value.name for value in session.get_inputs()], inputs, model)
        session.run(None, feeds)
    except ToolError:
        raise
    except Exception as err:  # onnxruntime's own have no common base
        raise _refused("onnxruntime", model, err) from err
    return Contender("onnxruntime", onnxruntime.__version__, lambda: session.run(None, feeds))


def open_openvino(model: Path, inputs: Arrays, threads: int, precision: str = "f32") -> Contender:
    """The model in OpenVINO on ``threads`` threads, for latency.

    Args:
        model: An ONNX file or OpenVINO IR; a quantised one runs as integers.
        inputs: Arrays by input name.
        threads: Threads that it may use.
        precision: Its precision hint for what is float: ``f32``, ``bf16`` or ``f16``.

    Raises:
        OptionError: Another precision.
        ToolError: openvino is not installed, or does not take the model.
    """
    if precision not in ("f32", "bf16", "f16"):
        raise OptionError(
            f"--against: openvino has no precision '{precision}'", "allowed are f32, bf16 and f16"
        )
    try:
        import openvino
    except ImportError as err:
        raise _not_installed("openvino") from err
    settings = {
        "PERFORMANCE_HINT": "LATENCY",
        "INFERENCE_NUM_THREADS": str(threads),
        "NUM_STREAMS": "1",
        "INFERENCE_PRECISION_HINT": precision,
    }
    try:
        network = openvino.Core().read_model(str(model))
        feeds = _select([value.any_name for value in network.inputs], inputs, model)
        network.reshape({name: list(array.shape) for name, array in feeds.items()})
        request = openvino.compile_model(network, "CPU", settings).create_infer_request()
    except RuntimeError as err:
        raise _refused("openvino", model, err) from err
    outputs = range(len(network.outputs))

    def run() -> list[Array]:
        request.infer(feeds)
        return [request.get_output_tensor(i).data for i in outputs]

    return Contender(_named("openvino", precision), openvino.get_version(), run)


_PEERS = {"onnxruntime": open_onnxruntime, "openvino": open_openvino}


def open_peers(names: str, model: Path, inputs: Arrays, threads: int) -> list[Contender]:
    """The model in several runtimes: ``names`` is a list of what ``open_peer`` takes, with commas.

    Raises:
        OptionError: No runtime is named, or not one that is known.
        ModelError: The model is missing, or an ONNX file is none.
        ToolError: A runtime is not installed, or does not take the model.
    """
    listed = [name.strip() for name in names.split(",") if name.strip()]
    if not listed:
        raise OptionError(f"--against: '{names}' names no runtime", f"known are {', '.join(_PEERS)}")
    if model.suffix.lower() == ".onnx" or not model.exists():
        from tvm_ipu.frontends.onnx.load import parse_file  # its message is clearer than the runtimes'

        parse_file(model)
    return [open_peer(name, model, inputs, threads) for name in listed]


def open_peer(name: str, model: Path, inputs: Arrays, threads: int) -> Contender:
    """The model in the runtime called ``name``.

    Args:
        name: ``onnxruntime`` or ``openvino``; after a colon the precision of float arithmetic
            (``openvino:bf16``), else float32.
        model: A model file.
        inputs: Arrays by input name; their shapes fix the model's dynamic dimensions.
        threads: Threads that the runtime may use.

    Raises:
        OptionError: No such runtime or precision.
        ToolError: It is not installed, or does not take the model.
    """
    runtime, _, precision = name.partition(":")
    if runtime not in _PEERS:
        raise OptionError(f"--against: unknown runtime '{runtime}'", f"known are {', '.join(_PEERS)}")
    return _PEERS[runtime](model, inputs, threads, precision or "f32")


def _named(runtime: str, precision: str) -> str:
    return runtime if precision == "f32" else f"{runtime}:{precision}"


def _select(names: list[str], inputs: Arrays, model: Path) -> dict[str, Array]:
    """The arrays that the peer's inputs called ``names`` get."""
    missing = [name for name in names if name not in inputs]
    if missing:
        raise ToolError(
            f"{model} has an input '{missing[0]}' that the image lacks", "was it made from this model?"
        )
    return {name: inputs[name] for name in names}


def _refused(runtime: str, model: Path, err: Exception) -> ToolError:
    lines = [line.strip() for line in str(err).splitlines() if line.strip()]
    return ToolError(
        f"{runtime} does not take {model}: {lines[-1] if lines else type(err).__name__}",
        "was the image made from this model, in shapes that it takes?",
    )


def _not_installed(package: str) -> ToolError:
    return ToolError(
        f"--against: the package {package} is not installed", f"install it with: pip install {package}"
    )
