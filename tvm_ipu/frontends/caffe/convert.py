"""A Caffe network as an ONNX model: its layers one by one, NCHW as they are.

Names of blobs stay. Where layers work in place, the last one's result has the blob's name; those before are
called ``blob/layer``, and so is what works in place on an input.
"""

from __future__ import annotations

import itertools
import logging
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from onnx import ModelProto, TensorProto, ValueInfoProto, helper

from tvm_ipu.base.errors import ModelError, OptionError, UnsupportedOperatorError
from tvm_ipu.base.shapes import InputShapes
from tvm_ipu.frontends.caffe import elementwise, shapes, windows
from tvm_ipu.frontends.caffe.network import Layer, Network, read_network
from tvm_ipu.frontends.cutting import cut_hint
from tvm_ipu.frontends.damage import refuse_damage
from tvm_ipu.frontends.onnx.inputs import fix_inputs, unknown_names
from tvm_ipu.frontends.onnx.model_builder import ModelBuilder
from tvm_ipu.frontends.options import LoadOptions

_log = logging.getLogger(__name__)

RULES = elementwise.RULES | shapes.RULES | windows.RULES
"""Rules by type of layer."""

_ENDS = frozenset({"Accuracy", "DetectionEvaluate", "DetectionOutput", "HDF5Output", "Silence"})
_PRIORS = frozenset({"PriorBox", "PriorBoxClustered"})


@dataclass(frozen=True)
class _Step:
    """A layer with the unique names of the tensors that it reads and makes."""

    layer: Layer
    reads: tuple[str, ...]
    makes: tuple[str, ...]


def to_onnx(source: Path, options: LoadOptions) -> ModelProto:
    """The network of a prototxt with the weights of ``options.weights``.

    Layers that only work in training, detection output and what feeds it with prior boxes are left out.

    Args:
        source: The prototxt.
        options: Shapes, outputs and the caffemodel; by default the file beside the prototxt with its name.

    Raises:
        ModelError: A file is missing, damaged, or the weights are those of another network.
        UnsupportedOperatorError: There are layers of unknown types; all are listed.
        OptionError: An option does not fit the network.
    """
    network = read_network(source, options.weights or _beside(source))
    steps = _name_tensors(network)
    steps, outputs = _without_ends(steps, list(network.inputs))
    if options.outputs:
        made = [*network.inputs, *(name for step in steps for name in step.makes)]
        unknown = [name for name in options.outputs if name not in made]
        if unknown:
            raise OptionError(unknown_names("--output-arrays: there is no tensor", unknown, made))
        outputs = list(options.outputs)
    if not outputs:
        raise ModelError(f"'{source}' has no layer that computes something")
    steps = _needed(steps, outputs)
    unsupported = [step.layer for step in steps if step.layer.type not in RULES]
    if unsupported:
        raise UnsupportedOperatorError(
            f"{len(unsupported)} layers of the network cannot be compiled:"
            + "".join(f"\n  {layer}" for layer in unsupported),
            cut_hint(((s.reads, s.makes, s.layer.type in RULES) for s in steps), network.inputs),
        )
    return _convert(network, steps, outputs, options)


def _beside(source: Path) -> Path:
    found = source.with_suffix(".caffemodel")
    if not found.exists():
        raise ModelError(
            f"'{source}' has no weights: there is no '{found}'", "name the file: --weight-file x.caffemodel"
        )
    return found


def _name_tensors(network: Network) -> list[_Step]:
    """The layers with unique names of tensors.

    Raises:
        ModelError: A layer reads a blob that nothing before it makes.
    """
    last = {top: i for i, layer in enumerate(network.layers) for top in layer.tops}
    names = dict(zip(network.inputs, network.inputs, strict=True))
    taken = {*network.inputs, *last}
    steps = []
    for i, layer in enumerate(network.layers):
        unknown = [blob for blob in layer.bottoms if blob not in names]
        if unknown:
            raise ModelError(f"{layer} reads '{unknown[0]}', which no layer before it makes")
        reads = tuple(names[blob] for blob in layer.bottoms)
        for top in layer.tops:
            own = last[top] == i and top not in network.inputs
            names[top] = top if own else _unique(f"{top}/{layer.name}", taken)
            taken.add(names[top])
        steps.append(_Step(layer, reads, tuple(names[top] for top in layer.tops)))
    return steps


def _unique(name: str, taken: Collection[str]) -> str:
    numbered = (f"{name}#{i}" for i in itertools.count(2))
    return next(n for n in itertools.chain([name], numbered) if n not in taken)


def _without_ends(steps: list[_Step], inputs: list[str]) -> tuple[list[_Step], list[str]]:
    """The layers without those that are cut off, and the outputs that remain."""
    kept, cut, lost = [], [], set[str]()
    for step in steps:
        kind = step.layer.type
        if kind in _ENDS | _PRIORS or kind.endswith("Loss") or lost.intersection(step.reads):
            cut.append(step)
            lost.update(step.makes)
        else:
            kept.append(step)
    made = [name for step in kept for name in step.makes]
    read = {name for step in kept for name in step.reads}
    wanted = {n for step in cut if step.layer.type not in _PRIORS for n in step.reads}
    silent = {n for step in cut if step.layer.type == "Silence" for n in step.reads}
    ends = {n for step in cut for n in step.reads}
    outputs = [n for n in made if n in wanted - silent or (n not in read and n not in ends)]
    visible = [step.layer for step in cut if step.layer.type != "Silence"]
    if visible:
        _log.warning(
            "left out: %s; the outputs are %s",
            ", ".join(map(str, visible)),
            ", ".join(f"'{n}'" for n in outputs),
        )
    return kept, outputs


def _needed(steps: list[_Step], outputs: Collection[str]) -> list[_Step]:
    """The steps that some outputs depend on."""
    wanted, needed = set(outputs), []
    for step in reversed(steps):
        if wanted.intersection(step.makes):
            needed.append(step)
            wanted.update(step.reads)
    return needed[::-1]


def _convert(network: Network, steps: list[_Step], outputs: list[str], options: LoadOptions) -> ModelProto:
    b = ModelBuilder(network.name)
    read = {name for step in steps for name in step.reads} | set(outputs)
    infos = [_info(name, dims) for name, dims in network.inputs.items() if name in read]
    for tensor in fix_inputs(infos, _given_shapes(infos, options), options.batch):
        b.input(tensor.name, tensor.elem_type, tensor.shape or ())
    for step in steps:
        b.location = step.layer.name or step.layer.type
        with refuse_damage(step.layer):
            made = RULES[step.layer.type](b, step.layer, step.reads)
        made = [made] if isinstance(made, str) else list(made)
        if len(made) != len(step.makes):
            raise ModelError(f"{step.layer}: it has {len(step.makes)} tops; {len(made)} are expected")
        for name, wanted in zip(made, step.makes, strict=True):
            b.rename(b.add("Identity", name) if name in step.reads else name, wanted)
    for name in outputs:
        b.output(name)
    return b.model("caffe")


def _info(name: str, dims: tuple[int, ...] | None) -> ValueInfoProto:
    return helper.make_tensor_value_info(name, TensorProto.FLOAT, dims)


def _given_shapes(infos: Sequence[ValueInfoProto], options: LoadOptions) -> InputShapes:
    """The shapes of the network's own inputs; those of tensors at which it is cut are for later."""
    dims = {info.name: [d.dim_value for d in info.type.tensor_type.shape.dim] for info in infos}
    given = options.input_shapes
    if not isinstance(given, Mapping):
        given = {} if options.inputs or len(given) != len(dims) else dict(zip(dims, given, strict=True))
    if options.inputs:
        given = {name: shape for name, shape in given.items() if name in dims}
    return {
        name: [own if dim == -1 else dim for dim, own in itertools.zip_longest(shape, dims.get(name, ()))]
        for name, shape in given.items()
    }
