"""A Caffe network as its two files have it: layers of the TEST phase, inputs, and checked weights."""

from __future__ import annotations

import itertools
import math
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from google.protobuf import text_format  # type: ignore[import-untyped]
from google.protobuf.message import DecodeError  # type: ignore[import-untyped]

from tvm_ipu.base.errors import ModelError
from tvm_ipu.base.files import read_model_file
from tvm_ipu.frontends.caffe.schema import V1_TYPES, LayerParameter, NetParameter
from tvm_ipu.frontends.onnx.graph import Array

Dims = tuple[int, ...]

DATA_TYPES = frozenset(
    {"Data", "DummyData", "HDF5Data", "ImageData", "Input", "MemoryData", "WindowData", "AnnotatedData"}
)
"""Layers that bring the network's inputs."""

_TEST = 1
"""The phase."""

_RAW_TYPES = ("<f8", "<f4", "<f2", "<i4", "<u4")


@dataclass(frozen=True)
class Layer:
    """A layer.

    Attributes:
        name: Its name.
        type: Its type, in today's spelling.
        bottoms: Blobs that it reads.
        tops: Blobs that it writes; one of ``bottoms`` where it works in place.
        message: Its message, with the parameters of its type.
        weights: Messages of its weights, from the caffemodel.
        file: That file, for messages; empty where none has weights for it.
    """

    name: str
    type: str
    bottoms: tuple[str, ...]
    tops: tuple[str, ...]
    message: Any
    weights: tuple[Any, ...] = ()
    file: str = ""

    def __str__(self) -> str:
        return f"layer '{self.name}' ({self.type})"

    def param(self, name: str) -> Any:
        """The parameters of a kind, such as ``pooling_param``; defaults where the layer has none."""
        return getattr(self.message if hasattr(self.message, name) else LayerParameter(), name)

    def check_weights(self, fewest: int, most: int) -> int:
        """How many weights there are.

        Raises:
            ModelError: There are fewer or more than the layer can have.
        """
        count = len(self.weights)
        if not count and fewest:
            raise ModelError(
                f"{self}: '{self.file}' has no weights for it",
                "give the caffemodel that was trained with this prototxt",
            )
        if not fewest <= count <= most:
            wanted = str(fewest) if fewest == most else f"{fewest} to {most}"
            raise ModelError(f"{self}: '{self.file}' has {count} weights for it, {wanted} are expected")
        return count

    def weight(self, index: int, shape: Dims) -> Array:
        """One of its weights as float32.

        Args:
            index: Which one.
            shape: What it has to be; ones in front may be missing or too many.

        Raises:
            ModelError: It has another shape, or its data another length.
        """
        blob = self.weights[index]
        found = blob_dims(blob)
        if _without_leading_ones(found) != _without_leading_ones(shape):
            raise ModelError(
                f"{self}: weight {index} in '{self.file}' has the shape {list(found)}, "
                f"expected is {list(shape)}",
                "give the caffemodel that was trained with this prototxt",
            )
        data, count = _data(blob)
        if count != math.prod(found):
            raise ModelError(
                f"{self}: weight {index} in '{self.file}' has {count:g} values, its shape {list(found)} has "
                f"{math.prod(found)}"
            )
        return data.astype(np.float32).reshape(shape)


@dataclass(frozen=True)
class Network:
    """A network in the TEST phase.

    Attributes:
        name: Its name.
        inputs: Shape of each input; None where the prototxt has none.
        layers: The layers that compute, in their order.
    """

    name: str
    inputs: dict[str, Dims | None]
    layers: tuple[Layer, ...]


def read_network(prototxt: Path, caffemodel: Path) -> Network:
    """Read both files.

    Raises:
        ModelError: One is missing, truncated or no Caffe file, or the prototxt has no layers.
    """
    text = _read(prototxt, "prototxt")
    net = NetParameter()
    try:
        text_format.Parse(text.decode("utf-8", "replace"), net, allow_unknown_field=True)
    except text_format.ParseError as err:
        raise ModelError(f"'{prototxt}' is not a prototxt, or it is truncated: line {err}") from err
    if not net.layer and not net.layers:
        raise ModelError(f"'{prototxt}' has no layers")
    try:
        trained = NetParameter.FromString(_read(caffemodel, "caffemodel"))
    except DecodeError as err:
        raise ModelError(f"'{caffemodel}' is not a caffemodel, or it is truncated") from err
    learned = [*trained.layers, *trained.layer]
    if not learned:
        raise ModelError(f"'{caffemodel}' has no layers: it is not a caffemodel, or it is truncated")
    weights = {one.name: tuple(one.blobs) for one in learned if one.blobs}
    layers = [
        Layer(m.name, _type(m), tuple(m.bottom), tuple(m.top), m, weights.get(m.name, ()), str(caffemodel))
        for m in (*net.layers, *net.layer)
        if _is_included(m)
    ]
    inputs = _declared_inputs(net, prototxt)
    for layer in layers:
        if layer.type in DATA_TYPES:
            inputs |= zip(layer.tops, _data_dims(layer), strict=False)
    computing = tuple(layer for layer in layers if layer.type not in DATA_TYPES)
    return Network(net.name or prototxt.stem, inputs, computing)


def _read(path: Path, kind: str) -> bytes:
    content = read_model_file(path, kind)
    if not content.strip():
        raise ModelError(f"'{path}' is empty")
    return content


def _type(message: Any) -> str:
    return message.type if isinstance(message.type, str) else list(V1_TYPES.values())[message.type]


def _is_included(message: Any) -> bool:
    """Whether a layer is part of the network of phase TEST, level 0 and no stages."""
    if message.include:
        return any(_is_met(rule) for rule in message.include)
    return not any(_is_met(rule) for rule in message.exclude)


def _is_met(rule: Any) -> bool:
    return rule.phase == _TEST and rule.min_level <= 0 <= rule.max_level and not rule.stage


def _declared_inputs(net: Any, prototxt: Path) -> dict[str, Dims | None]:
    """Inputs in the forms before Input layers."""
    names, dims = list(net.input), list(net.input_dim)
    shapes = [tuple(one.dim) for one in net.input_shape] or [
        tuple(dims[i : i + 4]) for i in range(0, len(dims), 4)
    ]
    if shapes and (len(shapes) != len(names) or len(dims) % 4):
        raise ModelError(
            f"'{prototxt}' has {len(names)} inputs, but {len(dims) or len(shapes)} dimensions of inputs"
        )
    return dict(itertools.zip_longest(names, shapes))


def _data_dims(layer: Layer) -> list[Dims | None]:
    """Shapes of what a data layer brings."""
    count = len(layer.tops)
    no_shapes: list[Dims | None] = [None] * count
    if layer.type == "MemoryData":
        p = layer.param("memory_data_param")
        picture: Dims = (p.batch_size, p.channels, p.height, p.width)
        return [picture, (p.batch_size,)]
    if layer.type not in ("Input", "DummyData"):
        return no_shapes
    p = layer.param("input_param" if layer.type == "Input" else "dummy_data_param")
    shapes: list[Dims | None] = [tuple(one.dim) for one in p.shape]
    if not shapes and layer.type == "DummyData":
        shapes = [*zip(p.num, p.channels, p.height, p.width, strict=False)]
    return shapes * count if len(shapes) == 1 else shapes or no_shapes


def blob_dims(blob: Any) -> Dims:
    """The shape of a ``BlobProto``, also where it is in the form of four fields."""
    if blob.HasField("shape"):
        return tuple(blob.shape.dim)
    return (blob.num, blob.channels, blob.height, blob.width)


def _data(blob: Any) -> tuple[Array, float]:
    """Its values, and how many there are: no integer where the last one is cut."""
    if not blob.raw_data:
        data = np.asarray(blob.double_data or blob.data, np.float32)
        return data, data.size
    dtype = np.dtype(_RAW_TYPES[blob.raw_data_type])
    count = len(blob.raw_data) / dtype.itemsize
    return np.frombuffer(blob.raw_data, dtype, int(count)), count


def _without_leading_ones(shape: Dims) -> Dims:
    return next((shape[i:] for i, dim in enumerate(shape) if dim != 1), ())
