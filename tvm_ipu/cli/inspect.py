"""``tvm-ipu inspect``: what is in a model or an image."""

from __future__ import annotations

import argparse
from collections.abc import Iterable
from pathlib import Path

from tvm_ipu.base.program import Plan
from tvm_ipu.base.tensor import TensorSpec
from tvm_ipu.cli.terminal import print_facts, print_table, scaled, size
from tvm_ipu.image.reader import ImageInfo


def configure(parser: argparse.ArgumentParser) -> None:
    """Declare the arguments of the command."""
    parser.add_argument("file", type=Path, metavar="FILE", help="a model (.onnx) or an image (.img)")


def execute(args: argparse.Namespace) -> int:
    """Print what the file holds."""
    from tvm_ipu import driver

    found = driver.inspect_file(args.file)
    if isinstance(found, ImageInfo):
        _print_image(found)
    return 0


def _print_image(image: ImageInfo) -> None:
    target = image.target
    print_facts(
        [
            ("image", image.path),
            ("format", f"{image.version[0]}.{image.version[1]}"),
            *((name, value) for name, value in image.metadata.items()),
            ("target", f"{target.name}: {target.triple}, {target.cpu or 'any CPU of that kind'}"),
            ("CPU must have", ", ".join(target.requires) or "nothing special"),
            ("numerics", target.numerics),
            ("kernels", len(image.symbols)),
        ]
    )
    for number, plan in enumerate(image.plans):
        print(f"\nPlan {number}")
        _print_plan(plan)
    print("Sections")
    rows = ((s.name, s.offset, s.size, f"{s.crc32:08x}", _checked(s.verified)) for s in image.sections)
    print_table(("section", ">offset", ">bytes", "CRC-32", "checked at load"), rows)


def _checked(verified: bool) -> str:
    return "yes" if verified else "no"


def _print_plan(plan: Plan) -> None:
    print_facts(
        [
            *_tensor_facts("input", plan.inputs),
            *_tensor_facts("output", plan.outputs),
            ("work", scaled(sum(call.flops for call in plan.calls), "FLOP")),
            ("arena", f"{size(plan.arena_size)} (all tensors side by side: {size(plan.tensor_bytes)})"),
            ("scratch", f"{size(plan.scratch_size)} a thread"),
        ]
    )
    rows = (
        (
            call.layer,
            call.op,
            call.template,
            call.kernel,
            scaled(call.flops, ""),
            size(call.bytes),
            call.extent,
        )
        for call in plan.calls
    )
    print_table(("layer", "operator", "template", "kernel", ">FLOP", ">bytes", ">units"), rows)


def _tensor_facts(role: str, specs: Iterable[TensorSpec]) -> list[tuple[str, str]]:
    return [(role, str(spec)) for spec in specs]
