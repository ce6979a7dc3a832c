"""What a table of operators is."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence

from tvm_ipu.frontends.tflite.call import Call

Function = Callable[[Call], str | Sequence[str]]
"""Gives the names of the results, real numbers where they are quantised."""

Table = Mapping[str, Function]
"""By the operator's name in TensorFlow Lite's schema."""
