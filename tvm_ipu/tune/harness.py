"""Build ``measure.c`` and the C runtime into one library that TVM loads here or on a board."""

from __future__ import annotations

import hashlib
import tempfile
from pathlib import Path

from tvm_ffi import libinfo

from tvm_ipu.base.cache import cache_dir
from tvm_ipu.base.errors import ToolError
from tvm_ipu.base.target import Target
from tvm_ipu.base.toolchain import find_toolchain, run_tool

_SOURCE = Path(__file__).with_name("measure.c")
_FLAGS = (
    *("-std=c11", "-O2", "-D_GNU_SOURCE", "-D_FILE_OFFSET_BITS=64", "-fPIC", "-fvisibility=hidden"),
    *("-shared", "-pthread", "-Wall", "-Wextra"),
)


def build_harness(target: Target, runtime: Path) -> Path:
    """The library for ``target``, from the cache if it was built before.

    Args:
        target: Chip that measures.
        runtime: Folder of the C runtime's sources.

    Raises:
        ToolError: No compiler, it fails, or the cache folder cannot be written.
    """
    tools = find_toolchain(target)
    sources = [_SOURCE, *sorted(f for f in runtime.glob("*.c") if f.name != "ipu_run.c")]
    digest = hashlib.sha256("\0".join((*tools.compiler, *_FLAGS, target.triple)).encode())
    for file in (*sources, *sorted(runtime.glob("*.h"))):
        digest.update(file.read_bytes())
    path = cache_dir() / f"measure-{digest.hexdigest()[:24]}.so"
    if not path.is_file():
        includes = [f"-I{folder}" for folder in (runtime, *libinfo.include_paths())]
        try:
            path.parent.mkdir(parents=True, exist_ok=True)
            with tempfile.TemporaryDirectory(dir=path.parent, prefix="measure-") as folder:
                made = Path(folder) / path.name
                run_tool([*tools.compiler, *_FLAGS, *includes, "-o", str(made), *map(str, sources)])
                made.replace(path)
        except OSError as err:
            raise ToolError(f"cannot write to {path.parent}: {err.strerror or err}") from err
    return path
