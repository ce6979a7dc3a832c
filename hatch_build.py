"""Build hook: a wheel that ships the built C runtime is for this platform only, any other for all."""

from __future__ import annotations

import sysconfig
from pathlib import Path
from typing import Any

from hatchling.builders.hooks.plugin.interface import BuildHookInterface


class NativeRuntimeHook(BuildHookInterface[Any]):
    """Tags the wheel."""

    def initialize(self, version: str, build_data: dict[str, Any]) -> None:
        """Called before the build; ``version`` is ``standard`` for a wheel and ``editable`` for a link."""
        if version == "standard" and any(Path(self.root, "tvm_ipu", "runtime", "_native").glob("*.so")):
            platform = sysconfig.get_platform().replace("-", "_").replace(".", "_")
            build_data["pure_python"] = False
            build_data["tag"] = f"py3-none-{platform}"
