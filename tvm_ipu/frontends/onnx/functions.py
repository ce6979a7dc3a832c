"""Function bodies: the model's own functions, and operators that ONNX defines by other operators."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from onnx import AttributeProto, FunctionProto, TypeProto

from tvm_ipu.frontends.onnx.evaluate import find_schema
from tvm_ipu.frontends.onnx.graph import Const, Tensor, domain_of, type_proto
from tvm_ipu.frontends.onnx.walker import Visit


def model_function(functions: Mapping[tuple[str, str], FunctionProto], visit: Visit) -> FunctionProto | None:
    """The model's own function that the node calls, or None."""
    return functions.get((domain_of(visit.node), visit.node.op_type))


def schema_function(visit: Visit) -> FunctionProto | None:
    """The body by which ONNX defines the node's operator, in the node's opset, or None where it has none."""
    schema = find_schema(visit.node.op_type, visit.version, domain_of(visit.node))
    if schema is None:
        return None
    limit = visit.scope.opsets.get("", visit.version)
    fixed = _newest(schema.function_opset_versions, limit)
    depending = _newest(schema.context_dependent_function_opset_versions, limit)
    if fixed:
        body = schema.get_function_with_opset_version(fixed)
    elif depending:
        types = [
            type_proto(v).SerializeToString()
            if isinstance(v, Const | Tensor)
            else TypeProto().SerializeToString()
            for v in visit.inputs
        ]
        node = visit.node.SerializeToString()
        body = schema.get_context_dependent_function_with_opset_version(depending, node, types)
    else:
        return None
    function = FunctionProto.FromString(body)
    defaults = (attribute.default_value for attribute in schema.attributes.values())
    function.attribute_proto.extend(d for d in defaults if d.type != AttributeProto.UNDEFINED)
    return function


def _newest(versions: Sequence[int], limit: int) -> int:
    """The newest of ``versions`` up to ``limit``, or 0."""
    return max((v for v in versions if v <= limit), default=0)
