"""TVM without PyTorch, which it imports where it can, to take its tensors: that takes a second."""

from __future__ import annotations

import sys
from collections.abc import Sequence
from importlib.abc import Loader, MetaPathFinder
from importlib.machinery import ModuleSpec, PathFinder
from types import ModuleType

_PACKAGES = ("tvm_ffi", "tvm")


def import_tvm_without_torch() -> None:
    """Hide PyTorch from TVM when TVM is imported for the first time; everybody else can import it as ever.

    For processes of our own: TVM does not know the tensors of PyTorch then. Where PyTorch has been imported
    already, nothing is hidden.
    """
    if not any(isinstance(finder, _Finder) for finder in sys.meta_path):
        sys.meta_path.insert(0, _Finder())


class _Finder(MetaPathFinder):
    def find_spec(
        self, name: str, path: Sequence[str] | None, target: ModuleType | None = None
    ) -> ModuleSpec | None:
        if name not in _PACKAGES or "torch" in sys.modules:
            return None
        spec = PathFinder.find_spec(name, path, target)
        if spec is not None and spec.loader is not None:
            spec.loader = _Loader(spec.loader)
        return spec


class _Loader(Loader):
    def __init__(self, loader: Loader) -> None:
        self._loader = loader

    def create_module(self, spec: ModuleSpec) -> ModuleType | None:
        return self._loader.create_module(spec)

    def exec_module(self, module: ModuleType) -> None:
        spec = module.__spec__
        if spec is not None:
            spec.loader = self._loader
        hides = "torch" not in sys.modules
        if hides:
            sys.modules["torch"] = None  # type: ignore[assignment]  # what makes an import fail
        try:
            self._loader.exec_module(module)
        finally:
            if hides:
                del sys.modules["torch"]
