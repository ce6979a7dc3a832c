"""Keras files, as Keras 2 and 3 wrote them, opened without running code that they hold."""

from __future__ import annotations

import json
import zipfile
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from tvm_ipu.base.errors import ModelError, ToolError
from tvm_ipu.frontends.extras import require, require_trust
from tvm_ipu.frontends.options import LoadOptions
from tvm_ipu.frontends.tensorflow.hdf5_probe import probe

_CODE = ("Lambda", "__lambda__", "FlaxLayer", "JaxLayer", "TorchModuleWrapper")
"""Classes in a model's configuration that hold Python's byte code or a pickle."""

_DROPPED = {
    "Conv2DTranspose": "groups",
    "Conv3DTranspose": "groups",
    "DepthwiseConv1D": "groups",
    "DepthwiseConv2D": "groups",
    "SeparableConv1D": "groups",
    "SeparableConv2D": "groups",
    "GRU": "time_major",
    "LSTM": "time_major",
    "SimpleRNN": "time_major",
}
"""What Keras 2 wrote of every such layer without any effect, and Keras 3 does not take."""


def read_keras(path: Path, options: LoadOptions) -> Any:
    """The model in an ``.h5`` or ``.keras`` file.

    Args:
        path: The file.
        options: Whether it is trusted; layers that hold Python's byte code are refused where it is not.

    Raises:
        ModelError: It is missing, truncated, no whole model, or has code that is not trusted.
    """
    keras = _keras()
    if not path.is_file():
        raise ModelError(f"model file '{path}' does not exist")
    probe(path)
    try:
        config = _config(path)
        held = next((one for one in _classes(config) if one in _CODE), None)
        if held is None or options.trust_pickle:
            layers = {name: _tolerant(getattr(keras.layers, name), key) for name, key in _DROPPED.items()}
            return keras.models.load_model(path, layers, compile=False, safe_mode=held is None)
    except Exception as err:  # Keras raises whatever its layers, h5py and zipfile do
        reason = (str(err).strip() or type(err).__name__).splitlines()[0]
        raise ModelError(f"'{path}' is not a Keras model, or it is truncated: {reason}") from err
    return require_trust(path, f"Python code (a layer of class {held.strip('_')})", options)


def _keras() -> Any:
    keras = require("keras", extra="tensorflow")
    if keras.backend.backend() != "tensorflow":
        raise ToolError(
            f"Keras computes with {keras.backend.backend()} here, models are converted with TensorFlow",
            "set the environment variable KERAS_BACKEND=tensorflow",
        )
    return keras


def _config(path: Path) -> Any:
    """The description of a model in its file."""
    if zipfile.is_zipfile(path):
        with zipfile.ZipFile(path) as archive:
            return json.loads(archive.read("config.json"))
    h5py = require("h5py", extra="tensorflow")
    with h5py.File(path, "r") as file:
        config = file.attrs.get("model_config")
        if config is None:
            raise ModelError("it has weights only, no model_config")
        return json.loads(config)


def _classes(config: Any) -> Iterator[str]:
    """All that the description says is of a class."""
    if isinstance(config, Mapping):
        if isinstance(config.get("class_name"), str):
            yield config["class_name"]
        config = list(config.values())
    if isinstance(config, list):
        for one in config:
            yield from _classes(one)


def _tolerant(layer: Any, key: str) -> Any:
    """The layer's class, whose ``from_config`` overlooks a key."""

    def from_config(_: Any, config: Mapping[str, Any]) -> Any:
        return layer.from_config({name: value for name, value in config.items() if name != key})

    return type(layer.__name__, (layer,), {"from_config": classmethod(from_config)})
