"""PyTorch's files: exported programs, TorchScript archives, and pickles, which need the user's trust."""

from __future__ import annotations

import pickle
import zipfile
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any
from unittest import mock

import torch

from tvm_ipu.base.errors import ModelError
from tvm_ipu.base.files import read_model_file
from tvm_ipu.frontends.extras import require_trust
from tvm_ipu.frontends.options import LoadOptions
from tvm_ipu.frontends.torch.modules import quiet

_OLD_PICKLE = b"\x80"
"""First byte of files that torch.save wrote before they were archives."""


def read_file(path: Path, options: LoadOptions) -> Any:
    """The model in a file; what it is says its content, not its name.

    Args:
        path: What torch.export.save, torch.jit.save or torch.save wrote.
        options: Whether pickles are trusted.

    Raises:
        ModelError: There is no model in it, it is damaged, or it is a pickle and pickles are not trusted.
    """
    start = read_model_file(path, size=4)
    with quiet():
        if start.startswith(_OLD_PICKLE):
            return _load_pickle(path, options)
        names = _entries(path)
        if any(
            name.endswith("/models/model.json") or name == "serialized_exported_program.json"
            for name in names
        ):
            return _load_program(path, options)
        if any(name.endswith("/constants.pkl") or "/code/" in name for name in names):
            return _load_script(path)
        if any(name.endswith("/data.pkl") for name in names):
            return _load_pickle(path, options)
    raise ModelError(f"'{path}' is no file of PyTorch's")


def _entries(path: Path) -> list[str]:
    try:
        with zipfile.ZipFile(path) as archive:
            return archive.namelist()
    except (zipfile.BadZipFile, NotImplementedError, OSError, ValueError) as err:
        raise ModelError(f"'{path}' is no PyTorch model, or it is truncated") from err


def _load_program(path: Path, options: LoadOptions) -> Any:
    try:
        if options.trust_pickle:
            return torch.export.load(path)
        with _plain_data_only():
            return torch.export.load(path)
    except pickle.UnpicklingError as err:
        require_trust(path, "pickled Python objects", options)
        raise _damaged(path, "an exported program", err) from err
    except Exception as err:  # whatever the parts of the file's readers raise
        if isinstance(err.__cause__ or err.__context__, pickle.UnpicklingError):
            require_trust(path, "pickled Python objects", options)
        raise _damaged(path, "an exported program", err) from err


@contextmanager
def _plain_data_only() -> Iterator[None]:
    """torch.load without Python objects, whatever its caller asks for."""
    load = torch.load

    def restricted(*args: Any, **kwargs: Any) -> Any:
        return load(*args, **{**kwargs, "weights_only": True})

    def refused(*_: Any, **__: Any) -> Any:
        raise pickle.UnpicklingError("a pickled object")

    with mock.patch.object(torch, "load", restricted), mock.patch.object(pickle, "loads", refused):
        yield


def _load_script(path: Path) -> Any:
    try:
        return torch.jit.load(path, map_location="cpu")
    except Exception as err:  # RuntimeError, and others for damaged archives
        raise _damaged(path, "TorchScript", err) from err


def _load_pickle(path: Path, options: LoadOptions) -> Any:
    try:
        content = torch.load(path, map_location="cpu", weights_only=True)
    except pickle.UnpicklingError:
        require_trust(path, "a pickled Python object", options)
        content = _load_trusted(path)
    except Exception as err:  # RuntimeError, EOFError ... for damaged files
        raise _damaged(path, "a file of torch.save", err) from err
    if isinstance(content, torch.nn.Module):
        return content
    _refuse_weights(path, content)
    raise ModelError(f"'{path}' holds a {type(content).__qualname__}, not a model")


def _load_trusted(path: Path) -> Any:
    try:
        return torch.load(path, map_location="cpu", weights_only=False)
    except (ImportError, AttributeError) as err:
        raise ModelError(
            f"'{path}' needs a class that cannot be imported here: {err}",
            "run in an environment where the model's code is, or save it with torch.export.save there",
        ) from err
    except Exception as err:  # whatever the code in the pickle raises
        raise _damaged(path, "a file of torch.save", err) from err


def _refuse_weights(path: Path, content: Any) -> None:
    """Say what to do with a file that has weights and no model."""
    if isinstance(content, torch.Tensor):
        raise ModelError(f"'{path}' holds a tensor, not a model")
    if not isinstance(content, Mapping):
        return
    found = [key for key, value in content.items() if isinstance(value, torch.nn.Module)]
    if found:
        raise ModelError(
            f"'{path}' is a checkpoint with a model under '{found[0]}'",
            f"convert that: convert_model(torch.load(path, weights_only=False)['{found[0]}'])",
        )
    raise ModelError(
        f"'{path}' holds weights only (a state_dict), without the model that they belong to",
        "build the model in Python, model.load_state_dict(torch.load(path)), and convert it: "
        "convert_model(model, example_input=...), or save it with torch.export.save",
    )


def _damaged(path: Path, what: str, err: Exception) -> ModelError:
    lines = str(err).strip().splitlines() or [type(err).__name__]
    return ModelError(f"cannot read '{path}' as {what}: {lines[0]}", "the file may be damaged or truncated")
