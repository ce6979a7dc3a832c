"""A process that runs preprocess scripts, so that what a script does to its process does not matter here.

    python -m tvm_ipu.samples.worker FD     one end of a socket pair

Messages are JSON; an answer is followed by the arrays' bytes. Nothing that comes from a script is unpickled.
"""

from __future__ import annotations

import importlib.util
import inspect
import json
import os
import signal
import sys
import traceback
from collections.abc import Callable
from contextlib import suppress
from multiprocessing.connection import Connection
from pathlib import Path
from typing import Any

import numpy as np

from tvm_ipu.base.errors import TvmIpuError
from tvm_ipu.samples import built_in
from tvm_ipu.samples.steps import Step, step_from_json

FUNCTION = "image_preprocess"
Function = Callable[[Path, bool], Any]


def main(descriptor: int) -> None:
    """Answer requests until the other end is closed, possibly before it has read an answer."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C is for the process that waits
    sys.dont_write_bytecode = True  # nothing is left beside the user's scripts
    with Connection(descriptor) as connection, suppress(EOFError, ConnectionError):
        functions: dict[int, Function] = {}
        steps = [step_from_json(one) for one in json.loads(connection.recv_bytes())]
        while True:
            _answer(connection, steps, functions, json.loads(connection.recv_bytes()))


def _answer(
    connection: Connection[Any, Any], steps: list[Step], functions: dict[int, Function], request: Any
) -> None:
    arrays = []
    for number, (step, path) in enumerate(zip(steps, request["files"], strict=True)):
        try:
            if number not in functions:
                functions[number] = _function(step)
            found = functions[number](Path(path), request["norm"])
            if not isinstance(found, np.ndarray):
                raise TypeError(f"it returned {type(found).__name__}, and must return numpy.ndarray")
            if found.dtype.hasobject or found.dtype.kind not in "biuf":
                raise TypeError(f"it returned an array of {found.dtype}, and must return numbers")
            arrays.append(np.ascontiguousarray(found).reshape(found.shape))
        except BaseException as err:  # a script may raise anything, SystemExit included
            words = f"{type(err).__name__}: {err}" if str(err) else type(err).__name__
            words = str(err) if isinstance(err, TvmIpuError) else words
            failure = {"input": number, "error": words, "traceback": traceback.format_exc()}
            connection.send_bytes(json.dumps(failure).encode())
            return
    connection.send_bytes(json.dumps({"arrays": [[a.dtype.str, a.shape] for a in arrays]}).encode())
    for array in arrays:
        connection.send_bytes(array.reshape(-1).view(np.uint8).data)


def _function(step: Step) -> Function:
    """What makes an input's array."""
    if step.script is None:
        return lambda path, norm: built_in.preprocess(step, path, norm)
    sys.path.insert(0, str(step.script.parent))  # modules that lie beside the script
    module_spec = importlib.util.spec_from_file_location(f"tvm_ipu_preprocess_{abs(hash(step))}", step.script)
    assert module_spec is not None
    assert module_spec.loader is not None
    module = importlib.util.module_from_spec(module_spec)
    module_spec.loader.exec_module(module)
    function = getattr(module, FUNCTION, None)
    if not callable(function):
        raise AttributeError(f"it has no function {FUNCTION}(path, norm=True)")
    named = inspect.signature(function).parameters
    if "norm" in named or any(p.kind is p.VAR_KEYWORD for p in named.values()):
        return lambda path, norm: function(str(path), norm=norm)
    raise TypeError(f"{FUNCTION} has no parameter 'norm'")


if __name__ == "__main__":
    main(int(sys.argv[1]))
    sys.stdout.flush()
    os._exit(0)  # threads that a script left behind do not keep the process
