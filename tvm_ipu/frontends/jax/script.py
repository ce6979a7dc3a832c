"""A JAX function in a Python file, which is run as preprocess scripts are."""

from __future__ import annotations

import runpy
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

from tvm_ipu.base.errors import ModelError, OptionError
from tvm_ipu.frontends.loaders import TYPES
from tvm_ipu.frontends.options import LoadOptions

EXAMPLE = "example_input"
"""The file's own arguments of its function, where the user gives none."""


def read_script(path: Path, options: LoadOptions) -> tuple[Callable[..., Any], LoadOptions]:
    """The function in a file, and the options with the file's own example arguments.

    Args:
        path: A Python file.
        options: ``signature`` names the function; by default it is the only jitted one.

    Raises:
        ModelError: The file is no Python file, or fails.
        OptionError: The file does not have the function.
    """
    if path.suffix.lower() != ".py":
        raise ModelError(
            f"'{path}' is no Python file, and files of exported functions cannot be read",
            "give a file that has the jitted function, or the function itself to tvm_ipu.convert_model",
        )
    try:
        found = runpy.run_path(str(path))
    except Exception as err:  # whatever the user's file raises
        raise ModelError(f"'{path}' fails: {type(err).__name__}: {err}") from err
    jitted = [name for name, value in found.items() if _is_jitted(value)]
    name = options.signature or (jitted[0] if len(jitted) == 1 else "")
    if not callable(found.get(name)):
        what = f"no function '{name}'" if name else "not one jitted function but several or none"
        listed = f"it has {', '.join(jitted)}" if jitted else "decorate the function with jax.jit"
        raise OptionError(f"--signature: '{path}' has {what}", listed)
    if options.example_input is None and not options.input_shapes:
        options = replace(options, example_input=found.get(EXAMPLE))
    return found[name], options


def _is_jitted(value: object) -> bool:
    return TYPES.get(f"{type(value).__module__}.{type(value).__qualname__}") == "jax"
