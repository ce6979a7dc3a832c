"""docs/benchmarks.md from the results of ``bench_models``."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

from scripts.bench_layers import Layer, reason, roofline_ns
from tvm_ipu.base.files import whole_file

NOTES = Path("docs/benchmark-notes.md")
"""What a person has to say about the figures; becomes part of the report."""
SLOW = 0.10
"""Share of its roofline below which a layer is listed."""

Cell = dict[str, Any]


def write_report(facts: dict[str, Any], path: Path) -> None:
    """Write the report of all cells that were measured."""
    text = "\n".join(_report(facts)) + "\n"
    with whole_file(path) as file:
        file.write(text.encode())


def _report(facts: dict[str, Any]) -> Iterator[str]:
    cells: list[Cell] = sorted(facts["cells"].values(), key=_place)
    yield from _head(facts["machine"], facts["peaks"])
    yield from _summary(cells, facts["images"], facts["peaks"])
    yield from _contenders(cells)
    yield from _held(cells)
    yield from _cold_starts(cells)
    yield from _slow(cells, facts["peaks"])
    if NOTES.exists():
        yield ""
        yield NOTES.read_text(encoding="utf-8").rstrip()


def _head(machine: dict[str, Any], peaks: dict[str, float]) -> Iterator[str]:
    yield "# Benchmarks"
    yield ""
    yield "Made by `scripts/bench --report`. Times are medians in milliseconds of runs alternating with the"
    yield "other runtimes' in one process, at batch 1; below a ratio of 1 the image is faster than the"
    yield "best of them."
    yield ""
    caches = f"level-2 cache {machine['l2_bytes'] >> 10} KiB a core"
    yield f"Machine: {machine['model']}, {machine['cores']} cores, {caches}."
    units = {"l2": "GB/s", "l3": "GB/s", "memory": "GB/s"}
    yield (
        "Peaks of one core (`scripts/peaks.c`): "
        + ", ".join(f"{name} {value:.0f} {units.get(name, 'GOP/s')}" for name, value in peaks.items())
        + "."
    )
    yield ""


def _summary(cells: list[Cell], images: dict[str, Any], peaks: dict[str, float]) -> Iterator[str]:
    yield (
        "| model | precision | threads | target | image | "
        + "best other | ratio | share of roofline | profiled | compile (s) | image (MB) |"
    )
    yield "| --- | --- | --- | --- | --- | --- | --- | --- | --- | --- | --- |"
    for cell in cells:
        yield _row(cell, images[f"{cell['model']} {cell['precision']} {cell['target']}"], peaks)
    yield ""
    yield "`bf16-all`: no layer is kept in float32 (`--max-error 0`). `int8`: calibrated by NNCF, as the"
    yield "others' models are; `int8-here`: by this project, at level L2; `int8-bf16`: the floats between the"
    yield "integers are bfloat16, as `openvino:bf16`'s. Profiled: the sum of what `--profile` tells, as a"
    yield "share of runs without it, in turn with them."
    yield ""


def _contenders(cells: list[Cell]) -> Iterator[str]:
    yield "All contenders. The error is the largest one of an output, as a share of its largest value, beside"
    yield "ONNX Runtime in float32 on the same inputs: a photograph, or random words."
    yield ""
    yield "| model | precision | threads | target | contender | median | min | runs | error |"
    yield "| --- | --- | --- | --- | --- | --- | --- | --- | --- |"
    for cell in cells:
        image, *others = cell["results"]
        names = ["image", *(f"{one['name']} {one['detail'].split('-')[0]}" for one in others)]
        for name, result in zip(names, (image, *others), strict=True):
            yield (
                f"| {cell['model']} | {cell['precision']} | {cell['threads']} | {cell['target']} | {name} "
                f"| {result['median_ms']:.2f} | {result['min_ms']:.2f} | {result['runs']} "
                f"| {result['error']:.1e} |"
            )
    yield ""


def _cold_starts(cells: list[Cell]) -> Iterator[str]:
    yield "## Cold start and memory"
    yield ""
    yield "From the start of a process to its end after one inference, on one thread, files in the page"
    yield "cache. The image runs in `ipu-run`, the others in Python."
    yield ""
    yield "| model | precision | image (ms) | onnxruntime | openvino | image (MB) | onnxruntime | openvino |"
    yield "| --- | --- | --- | --- | --- | --- | --- | --- |"
    for cell in cells:
        if "cold" in cell:
            who = [cell["cold"].get(name) for name in ("ipu-run", "onnxruntime", "openvino")]
            times, memory = (
                " | ".join(f"{w[key]:.0f}" if w else "" for w in who) for key in ("ms", "memory_mb")
            )
            yield f"| {cell['model']} | {cell['precision']} | {times} | {memory} |"
    yield ""


def _slow(cells: list[Cell], peaks: dict[str, float]) -> Iterator[str]:
    yield "## Layers below a tenth of their roofline"
    yield ""
    yield "The roofline of a layer is the longer of its arithmetic at the core's peak and its operands at the"
    yield "speed of level 3. All such layers, on one thread; the reason is told by the kind of the layer."
    yield ""
    yield "| model | precision | layer | kernel | share of run | share of roofline | reason |"
    yield "| --- | --- | --- | --- | --- | --- | --- |"
    for cell in cells:
        if cell["threads"] == 1 and cell["target"] == "host":
            yield from _slow_layers(cell, peaks)


def _place(cell: Cell) -> tuple[bool, str, str, list[str], int]:
    """Where a cell stands: by target, this machine's own first, then by model, precision and threads."""
    precision = [kind if kind != "fp32" else "" for kind in cell["precision"].split("-")]
    return cell["target"] != "host", cell["target"], cell["model"], precision, cell["threads"]


def _held(cells: list[Cell]) -> Iterator[str]:
    held = [cell for cell in cells if "openvino_kernels" in cell and cell["threads"] == 1]
    if held:
        yield "OpenVINO held to the instructions of the image's target (`ONEDNN_MAX_CPU_ISA`): layers by"
        yield "kernel as its profile tells them:"
        yield ""
    for cell in held:
        kernels = ", ".join(f"{kind} {count}" for kind, count in cell["openvino_kernels"].items())
        yield f"- {cell['model']} {cell['precision']} {cell['target']}: {kernels}"
    if held:
        yield ""


def _row(cell: Cell, image: dict[str, Any], peaks: dict[str, float]) -> str:
    ours, *peers = cell["results"]
    best = min(peers, key=lambda r: r["median_ms"], default=ours)
    limit = sum(_roofline(layer, cell, peaks) for layer in cell["layers"]) / 1e6
    share = f"{limit / ours['median_ms']:.0%}" if cell["target"] == "host" else ""
    compiled = f"{image['compile_s']:.0f}" if "compile_s" in image else ""  # unknown on a busy machine
    return (
        f"| {cell['model']} | {cell['precision']} | {cell['threads']} | {cell['target']} "
        f"| {ours['median_ms']:.2f} | {best['median_ms']:.2f} ({best['name']}) "
        f"| {ours['median_ms'] / best['median_ms']:.2f} | {share} | {cell['profiled']:.0%} "
        f"| {compiled} | {image['mb']:.0f} |"
    )


def _roofline(layer: Layer, cell: Cell, peaks: dict[str, float]) -> float:
    return roofline_ns(layer, cell["precision"], cell["threads"], peaks)


def _slow_layers(cell: Cell, peaks: dict[str, float]) -> Iterator[str]:
    total = sum(layer["ns"] for layer in cell["layers"])
    for layer in cell["layers"]:
        share, roof = layer["ns"] / total, _roofline(layer, cell, peaks) / max(layer["ns"], 1)
        if roof < SLOW:
            name = layer["layer"] if len(layer["layer"]) < 60 else layer["layer"][:57] + "..."
            yield (
                f"| {cell['model']} | {cell['precision']} | {name} | {layer['op']} ({layer['template']}) "
                f"| {share:.1%} | {roof:.0%} | {reason(layer) or 'not known'} |"
            )
