"""PyTorch models as ONNX: by torch.export where that works, else by tracing or by TorchScript.

A module is exported by torch.export, then traced, then scripted; TorchScript has a way of its own. What a way
cannot do is logged, and the next one is tried; the error is that of the first way.
"""

from __future__ import annotations

import logging
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any

from onnx import ModelProto

from tvm_ipu.base.errors import ModelError, UnsupportedOperatorError
from tvm_ipu.frontends.extras import require
from tvm_ipu.frontends.options import LoadOptions

if TYPE_CHECKING:
    from tvm_ipu.frontends.torch.calls import Call

    Way = Callable[[Call, list[str]], ModelProto]

_log = logging.getLogger(__name__)


def to_onnx(source: Any, options: LoadOptions) -> ModelProto:
    """A PyTorch model as ONNX, in evaluation mode; the model itself is left as it was.

    Args:
        source: A Module, ScriptModule, ScriptFunction or ExportedProgram, or the path of a file with one.
        options: Example inputs, or shapes for random ones. A dimension of -1 stays open.

    Raises:
        ToolError: PyTorch is not installed.
        ModelError: The file is damaged or needs trust, or no way to export the model works.
        OptionError: The example inputs or the shapes do not fit the model.
        UnsupportedOperatorError: It has operators that have no form in ONNX; all are listed.
    """
    require("torch", extra="torch")
    from tvm_ipu.frontends.torch import files, modules

    with modules.quiet():
        if isinstance(source, str | Path):
            source = files.read_file(Path(source), options)
        if modules.is_program(source):
            return _translate(source)
        modules.check(source)
        with modules.evaluation(source):
            return _export(source, options)


def _translate(exported: Any) -> ModelProto:
    from tvm_ipu.frontends.torch import program

    return program.translate(exported, program.output_names(exported))


def _export(source: Any, options: LoadOptions) -> ModelProto:
    """The first way that works."""
    from tvm_ipu.frontends.torch import calls, modules

    ways = _script_ways(source) if modules.is_script(source) else _module_ways(source)
    open_first = options.batch is not None  # then other batches can be compiled without another export
    errors: dict[str, Exception] = {}
    for open_batch in (True, False) if open_first else (False,):
        call = calls.make_call(source, options, open_batch)
        names = modules.output_names(modules.run(source, call))
        for name, export in ways.items():
            if name == _FOLLOWING and call.open_axes:
                continue
            try:
                return export(call, names)
            except Exception as err:  # exporters raise errors of all kinds
                errors[name] = err
                _log.info("%s%s fails: %s", name, " with an open batch" if open_batch else "", err)
            if open_batch:
                break
    known = next((err for err in errors.values() if isinstance(err, UnsupportedOperatorError)), None)
    if known is not None:
        raise known
    reasons = "".join(f"\n  {name}: {_first_line(err)}" for name, err in errors.items())
    raise ModelError(f"{modules.title(source)} cannot be exported:{reasons}") from next(iter(errors.values()))


def _module_ways(module: Any) -> dict[str, Way]:
    from tvm_ipu.frontends.torch import program, script

    return {
        "torch.export": lambda call, names: program.translate(program.capture(module, call), names),
        "tracing": lambda call, names: script.export(module, call, names),
        "scripting": lambda call, names: script.export(script.compile_module(module), call, names),
    }


def _script_ways(source: Any) -> dict[str, Way]:
    from tvm_ipu.frontends.torch import follow, script

    return {
        _FOLLOWING: lambda call, names: follow.export(source, call, names),
        "TorchScript": lambda call, names: script.export(source, call, names),
    }


_FOLLOWING = "following the run"
"""The way that fixes all shapes."""


def _first_line(err: Exception) -> str:
    lines = str(err).strip().splitlines()
    return lines[0] if lines else type(err).__name__
