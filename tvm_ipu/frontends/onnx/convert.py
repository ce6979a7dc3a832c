"""``tvm-ipu convert``: an ONNX model as an optimised ONNX model of fixed shapes."""

from __future__ import annotations

from pathlib import Path

import onnx

from tvm_ipu.base.errors import ModelError, OptionError
from tvm_ipu.frontends.onnx.downgrade import downgrade
from tvm_ipu.frontends.onnx.evaluate import find_schema
from tvm_ipu.frontends.onnx.fold_batchnorm import fold_batchnorm
from tvm_ipu.frontends.onnx.half import to_half
from tvm_ipu.frontends.onnx.load import MIN_OPSET, change_opset, read_source
from tvm_ipu.frontends.onnx.prepare import prepare
from tvm_ipu.frontends.onnx.write import data_file, save, to_proto
from tvm_ipu.frontends.options import LoadOptions, OnnxSource

PRECISIONS = ("fp32", "fp16")


def convert(
    model: OnnxSource,
    output_path: Path,
    options: LoadOptions | None = None,
    precision: str = "fp32",
    convert_version: int | None = None,
) -> None:
    """Write the model with static shapes, constants folded and BatchNormalization inside the convolutions.

    Args:
        model: ONNX model.
        output_path: ONNX model to write; nothing is left there after a failure.
        options: Shapes and cuts.
        precision: ``fp32`` leaves types as they are; ``fp16`` computes in float16 between inputs and outputs
            of the model's own types.
        convert_version: Opset of the result; None keeps the model's.

    Raises:
        ModelError: The model is damaged, needs shapes, or has operators that the opset lacks.
        OptionError: An option has a value that is not allowed.
    """
    newest = onnx.defs.onnx_opset_version()
    if precision not in PRECISIONS:
        raise OptionError(
            f"--precision: '{precision}' is not allowed", f"allowed are {', '.join(PRECISIONS)}"
        )
    if convert_version is not None and not MIN_OPSET <= convert_version <= newest:
        raise OptionError(
            f"--convert-version: {convert_version} is not allowed", f"allowed are {MIN_OPSET} to {newest}"
        )
    source = read_source(model)

    def exists(domain: str, op_type: str) -> bool:
        """Whether the wanted opset has the operator; others are replaced by their function bodies."""
        return bool(domain or not convert_version or find_schema(op_type, convert_version, ""))

    graph = fold_batchnorm(prepare(source, options or LoadOptions(), exists))
    if precision == "fp16":
        graph = to_half(graph)
    own = graph.opsets.get("", MIN_OPSET)
    wanted = convert_version or own
    if wanted < own:
        graph = downgrade(graph, wanted)
    weights_file = data_file(graph, output_path)
    proto = to_proto(graph, weights_file)
    if wanted > own:
        if weights_file:
            raise ModelError(f"--convert-version: a model above 2 GB cannot go from opset {own} to {wanted}")
        proto = change_opset(proto, wanted, f"model '{source.name}'")
    save(proto, graph, output_path)
