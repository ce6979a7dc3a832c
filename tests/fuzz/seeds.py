"""Write small images of different kinds into a folder, for the fuzzer to start from."""

from __future__ import annotations

import sys
from dataclasses import replace
from pathlib import Path

from tests.image import image_kit as kit
from tvm_ipu.base.tensor import DType
from tvm_ipu.image.writer import write_image


def main(folder: Path) -> None:
    """Write the seeds."""
    tiny = {"code": kit.code()[0][:64], "symbols": dict.fromkeys(kit.code()[1], 0)}
    programs = {
        "sample": kit.sample_program(40),
        "two_plans": replace(kit.sample_program(4, requires=("fma", "avx2"), features=("+fma",)), **tiny),
        "chain": replace(kit.chain_program(5, 3), **tiny),
        "half": replace(kit.elementwise_program("copy16", DType.FLOAT16, (1, 2, 3, 4)), **tiny),
        "scalar": replace(kit.elementwise_program("copy16", DType.BFLOAT16, ()), **tiny),
        "empty": replace(kit.elementwise_program("copy16", DType.INT16, (3, 0)), **tiny),
    }
    for name, program in programs.items():
        write_image(program, folder / f"{name}.img")


if __name__ == "__main__":
    main(Path(sys.argv[1]))
