"""What a wheel holds: an installed tvm_ipu must find its targets and the C runtime's sources."""

import zipfile
from pathlib import Path

from hatchling.builders.wheel import WheelBuilder

ROOT = Path(__file__).resolve().parents[2]


def test_wheel_holds_the_package_targets_and_c_sources(tmp_path):
    (wheel,) = WheelBuilder(str(ROOT)).build(directory=str(tmp_path), versions=["standard"])
    with zipfile.ZipFile(wheel) as archive:
        names = set(archive.namelist())
    assert {"tvm_ipu/py.typed", "tvm_ipu/cli/main.py", "tvm_ipu/runtime/native/tvm_ipu.h"} <= names
    assert {f"tvm_ipu/_targets/{file.name}" for file in (ROOT / "targets").glob("*.toml")} <= names
    sources = [f for f in (ROOT / "tvm_ipu").rglob("*") if f.suffix in (".c", ".h", ".hpp", ".ld")]
    assert {str(file.relative_to(ROOT)) for file in sources} <= names
    assert not [name for name in names if not name.startswith(("tvm_ipu/", "tvm_ipu-"))]
