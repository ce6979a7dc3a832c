"""Packages that only some sources need, and files that only trust opens."""

from __future__ import annotations

import importlib
from pathlib import Path
from types import ModuleType

from tvm_ipu.base.errors import ModelError, ToolError
from tvm_ipu.frontends.options import LoadOptions


def require(module: str, extra: str) -> ModuleType:
    """Import a package of one of the project's extras.

    Args:
        module: Name of the module, ``torch`` or ``onnx.reference``.
        extra: The extra in ``pyproject.toml`` that installs it.

    Raises:
        ToolError: It is not installed, or cannot be imported here.
    """
    package = module.partition(".")[0]
    install = f"pip install 'tvm_ipu[{extra}]'"
    try:
        return importlib.import_module(module)
    except ModuleNotFoundError as err:
        if err.name is not None and err.name.partition(".")[0] == package:
            raise ToolError(
                f"this model needs the package '{package}', which is not installed", f"install it: {install}"
            ) from err
        raise ToolError(f"cannot import '{module}': {err}", f"install it again: {install}") from err
    except ImportError as err:
        raise ToolError(f"cannot import '{module}': {err}", f"install it again: {install}") from err


def require_trust(path: Path, what: str, options: LoadOptions) -> None:
    """Refuse a file that runs code when it is opened, unless the user trusts it.

    Args:
        path: The file.
        what: What in it can run code, such as ``a pickled Python object``.
        options: Whether the user said ``--trust-pickle``.

    Raises:
        ModelError: The user did not.
    """
    if not options.trust_pickle:
        raise ModelError(
            f"'{path}' holds {what}, which can run any code when it is opened",
            "if you trust where it comes from, say --trust-pickle (in Python: trust_pickle=True)",
        )
