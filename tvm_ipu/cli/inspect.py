"""``tvm-ipu inspect``: what is in a model or an image."""

from __future__ import annotations

import argparse
from collections import Counter
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING

from tvm_ipu.base.contract import Contract
from tvm_ipu.base.program import Plan
from tvm_ipu.cli.arguments import add_batch, add_input_shapes
from tvm_ipu.cli.sources import MODELS, add_arrays, add_source, load_options
from tvm_ipu.cli.terminal import print_facts, print_table, scaled, size
from tvm_ipu.image.reader import ImageInfo
from tvm_ipu.inspection import StageInfo, inspect_file

if TYPE_CHECKING:
    from tvm_ipu.frontends.onnx.summary import ModelSummary
    from tvm_ipu.image.stage import Stage

LISTS = ("float_layers", "bits")
"""Metadata that is shown in tables."""


def configure(parser: argparse.ArgumentParser) -> None:
    """Declare the arguments of the command."""
    parser.add_argument(
        "file", type=Path, metavar="FILE", help=f"an image (.img), a stage (.sim), or a model: {MODELS}"
    )
    add_input_shapes(parser, "shapes to count a model's work in")
    add_batch(parser)
    add_arrays(parser)
    add_source(parser)


def execute(args: argparse.Namespace) -> int:
    """Print what the file holds."""
    loading = replace(load_options(args), batch=args.batch)
    found = inspect_file(args.file, input_shapes=args.input_shapes, loading=loading)
    if isinstance(found, ImageInfo):
        _print_image(found)
    elif isinstance(found, StageInfo):
        _print_stage(found.stage)
        _print_model(found.model)
    else:
        _print_model(found)
    return 0


def _print_stage(stage: Stage) -> None:
    bits = tensor_bits(stage)
    print_facts(
        [
            ("stage", stage.kind),
            ("target", stage.target),
            *((name, value) for name, value in stage.metadata.items() if not isinstance(value, dict | list)),
            *([("tensors", bits)] if bits else []),
        ]
    )
    _print_contract(stage.contract)
    print()


def tensor_bits(stage: Stage) -> str:
    """How many of a stage's tensors have how many bits, in words; empty where it has no ranges."""
    bits = Counter(one.bits for one in stage.ranges.ranges.values())
    return ", ".join(f"{count} with {number} bits" for number, count in sorted(bits.items()))


def _print_model(model: ModelSummary) -> None:
    print_facts(
        [
            ("model", model.path),
            *((name, value) for name, value in model.facts.items() if value != ""),
            *(("input", f"{t.name}: {t.dtype}{t.shape}") for t in model.inputs),
            *(("output", f"{t.name}: {t.dtype}{t.shape}") for t in model.outputs),
            ("parameters", f"{scaled(model.parameters, '')} in {size(model.parameter_bytes)}"),
            ("MACs", _work(model.macs)),
            ("FLOPs", _work(model.flops)),
        ]
    )
    print()
    rows = [(o.op_type, o.count, _work(o.macs), _work(o.flops)) for o in model.operators]
    print_table(("operator", ">nodes", ">MACs", ">FLOPs"), rows)
    if model.unsupported:
        print("\nUnsupported")
        print_table(
            ("operator", "node", "reason"), [(u.op_type, u.node, u.reason) for u in model.unsupported]
        )
    if model.cut:
        print(f"\nnearly all of the work comes before these: --output-arrays {','.join(model.cut)}")
    if model.note:
        print(f"\nnote: {model.note}")


def _work(count: int | None) -> str:
    return "unknown" if count is None else scaled(count, "")


def _print_image(image: ImageInfo) -> None:
    target = image.target
    print_facts(
        [
            ("image", image.path),
            ("image format", f"{image.version[0]}.{image.version[1]}"),
            *((name, value) for name, value in image.metadata.items() if name not in LISTS and value != ""),
            ("target", f"{target.name}: {target.triple}, {target.cpu or 'any CPU of that kind'}"),
            ("CPU must have", ", ".join(target.requires) or "nothing special"),
            ("numerics", target.numerics),
            ("kernels", len(image.symbols)),
        ]
    )
    _print_contract(image.contract)
    for number, plan in enumerate(image.plans):
        print(f"\nPlan {number}")
        _print_plan(plan, bits_of_layers(image.metadata))
    print_float_layers(image.metadata)
    print("Sections")
    checked = {True: "yes", False: "no"}
    rows = ((s.name, s.offset, s.size, f"{s.crc32:08x}", checked[s.verified]) for s in image.sections)
    print_table(("section", ">offset", ">bytes", "CRC-32", "checked at load"), rows)


def _print_contract(contract: Contract) -> None:
    """What raw bytes at inputs and outputs mean."""
    if contract.inputs:
        print("\nRaw inputs")
        rows = [
            (
                one.name,
                one.input_format,
                one.training_format,
                ":".join(f"{value:g}" for value in one.mean) or "-",
                ":".join(f"{value:g}" for value in one.std) or "-",
                f"{one.width_alignment} x {one.height_alignment}",
                one.layout,
            )
            for one in contract.inputs
        ]
        print_table(("input", "fed", "trained on", "mean", "divisor", "alignment w x h", "layout"), rows)
    if contract.outputs:
        print("\nRaw outputs")
        made = [(o.name, o.format, "yes" if o.dequantize else "no", o.layout) for o in contract.outputs]
        print_table(("output", "format", "dequantised", "layout"), made)


def print_float_layers(metadata: Mapping[str, object]) -> None:
    """The layers of a quantised model that compute in float, with reasons."""
    layers = metadata.get("float_layers")
    if not isinstance(layers, list):
        return
    if not layers:
        print("Every layer computes in integers.\n")
        return
    print("Layers that compute in float")
    print_table(("layer", "reason"), [str(line).split(": ", 1) for line in layers])


def bits_of_layers(metadata: Mapping[str, object]) -> dict[str, str]:
    """Bits of the operands of a quantised model's products, by the names of their layers."""
    lines = metadata.get("bits")
    pairs = (str(line).rpartition(": ") for line in lines) if isinstance(lines, list) else ()
    return {name: bits for name, _, bits in pairs}


def _print_plan(plan: Plan, bits: Mapping[str, str]) -> None:
    print_facts(
        [
            *(("input", spec) for spec in plan.inputs),
            *(("output", spec) for spec in plan.outputs),
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
            next((bits[name] for name in call.layer.split("+") if name in bits), ""),
            call.kernel,
            scaled(call.flops, ""),
            size(call.bytes),
            call.extent,
        )
        for call in plan.calls
    )
    print_table(("layer", "operator", "template", "bits", "kernel", ">FLOP", ">bytes", ">units"), rows)
