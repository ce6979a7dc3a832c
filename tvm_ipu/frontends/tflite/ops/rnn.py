"""Recurrent layers that walk all steps of a sequence."""

from __future__ import annotations

import numpy as np

from tvm_ipu.frontends.tflite.call import Call, Refused
from tvm_ipu.frontends.tflite.model import Array
from tvm_ipu.frontends.tflite.ops.table import Table

_FUNCTIONS = ("Affine", "Relu", "", "", "Tanh", "")
"""ONNX's names of activations; Affine is the identity."""

_INPUT, _FORGET, _CELL, _OUTPUT = range(4)
_ONNX_ORDER = (_INPUT, _OUTPUT, _FORGET, _CELL)
"""Gates in ONNX's order, as numbers of TensorFlow Lite's."""


def _lstm(call: Call) -> str:
    """Up to 24 inputs, of which those of projection and normalisation must be missing."""
    _refuse(
        call, {1: "its input gate is coupled", 16: "it has a projection", 20: "it has layer normalisation"}
    )
    _refuse_scales(call)
    weights = [_matrix(call, i) for i in range(1, 9)]
    hidden = weights[4].shape[0]
    w, r = ([weights[start + gate] for gate in _ONNX_ORDER] for start in (0, 4))
    if any(m.shape != w[0].shape for m in w) or any(m.shape != (hidden, hidden) for m in r):
        raise call.damaged("has weights of different shapes")
    biases = [_vector(call, 12 + gate, hidden) for gate in _ONNX_ORDER]
    inputs = [
        _sequence(call),
        call.add_constant(np.concatenate(w)[None], "float32"),
        call.add_constant(np.concatenate(r)[None], "float32"),
        call.add_constant(np.concatenate([*biases, np.zeros(4 * hidden)])[None], "float32"),
    ]
    if call.has(9) or call.has(10) or call.has(11):
        peepholes = [_vector(call, 9 + i, hidden) for i in (0, 2, 1)]
        inputs += ["", "", "", call.add_constant(np.concatenate(peepholes)[None], "float32")]
    steps = call.builder.shape(inputs[0])[0]
    clip = float(call.option("CellClip"))
    if 0 < clip < steps:
        # A cell grows by at most one a step; only then can the bound on it never be reached.
        raise Refused(f"it bounds its cells by {clip:g} and walks {steps} steps")
    functions = ["Sigmoid", _function(call), _function(call)]
    made = call.emit("LSTM", *inputs, hidden_size=hidden, activations=functions)
    return _in_order(call, made)


def _rnn(call: Call) -> str:
    """UNIDIRECTIONAL_SEQUENCE_RNN: data, weights, recurrent weights, bias, state."""
    _refuse_scales(call)
    w, r = _matrix(call, 1), _matrix(call, 2)
    hidden = r.shape[0]
    if r.shape != (hidden, hidden) or w.shape[0] != hidden:
        raise call.damaged("has weights of different shapes")
    bias = np.concatenate([_vector(call, 3, hidden), np.zeros(hidden)])
    made = call.emit(
        "RNN",
        _sequence(call),
        *(call.add_constant(v[None], "float32") for v in (w, r, bias)),
        hidden_size=hidden,
        activations=[_function(call)],
    )
    return _in_order(call, made)


def _refuse(call: Call, reasons: dict[int, str]) -> None:
    for index, reason in reasons.items():
        if call.has(index) != (index == 1):
            raise Refused(reason)


def _refuse_scales(call: Call) -> None:
    if call.tensor(0).is_quantised:
        raise Refused("its data are quantised")


def _matrix(call: Call, index: int) -> Array:
    value = call.real_constant(index)
    if value.ndim != 2:
        raise call.damaged(f"has weights of shape {list(value.shape)}")
    return value


def _vector(call: Call, index: int, size: int) -> Array:
    """A constant of one number for each neuron; zeros where it is missing."""
    if not call.has(index):
        return np.zeros(size, np.float32)
    value = call.real_constant(index)
    if value.shape != (size,):
        raise call.damaged(f"has {list(value.shape)} numbers for {size} neurons")
    return value


def _function(call: Call) -> str:
    found: str = call.choice("FusedActivationFunction", _FUNCTIONS)
    if not found:
        raise Refused("its activation is not supported")
    return found


def _sequence(call: Call) -> str:
    """The data with steps first."""
    call.ranked(0, 3)
    x = call.real(0)
    return x if call.option("TimeMajor") else call.transpose(x, (1, 0, 2))


def _in_order(call: Call, made: str) -> str:
    """ONNX's [steps, 1, batch, neurons] as the operator gives it."""
    steps, _, batch, hidden = call.builder.shape(made)
    y = call.reshape(made, (steps, batch, hidden))
    return y if call.option("TimeMajor") else call.transpose(y, (1, 0, 2))


TABLE: Table = {"UNIDIRECTIONAL_SEQUENCE_LSTM": _lstm, "UNIDIRECTIONAL_SEQUENCE_RNN": _rnn}
