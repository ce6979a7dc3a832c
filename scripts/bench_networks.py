"""Times networks of many kinds beside ONNX Runtime and OpenVINO (``torch_networks``).

Each network is exported to ONNX, compiled, and run in turn with the others in one process. A file of results
is written after each one, and steps whose files are there are left out. The table is printed in the end.
"""

from __future__ import annotations

import argparse
import json
import time
from pathlib import Path
from typing import Any

import numpy as np
import onnx

from scripts.bench_case import PEERS
from tvm_ipu.base.files import whole_file
from tvm_ipu.base.options import CompileOptions
from tvm_ipu.bench.compare import compare, open_images
from tvm_ipu.bench.data import save_arrays
from tvm_ipu.bench.peers import open_peer
from tvm_ipu.cli.arguments import comma_list, numbers, positive
from tvm_ipu.driver import compile_model

Cells = dict[str, dict[str, Any]]


def main() -> None:
    """Measure what is not known yet, and print the table."""
    args = _arguments()
    args.folder.mkdir(parents=True, exist_ok=True)
    path = args.folder / "results.json"
    cells: Cells = json.loads(path.read_text()) if path.exists() else {}
    for name in args.models or _names():
        for threads in args.threads:
            key = f"{name} {args.precision} {threads}"
            if key not in cells or args.again:
                cells[key] = _measure(name, args, threads)
                with whole_file(path) as file:
                    file.write(json.dumps(cells, indent=1).encode())
    print("\n".join(table(cells)))


def _arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--models", type=comma_list, help="names of networks (default: all)")
    parser.add_argument("--precision", choices=("fp32", "bf16"), default="fp32")
    parser.add_argument("--threads", type=numbers, default=(1, 2), help="numbers of threads")
    parser.add_argument("--seconds", type=positive, default=3, help="time of the timed runs together")
    parser.add_argument("--again", action="store_true", help="measure again what is known")
    parser.add_argument("--folder", type=Path, default=Path("build/bench-networks"), help="for all files")
    return parser.parse_args()


def _names() -> list[str]:
    from tests.frontends.torch_networks import NETWORKS  # imports PyTorch

    return list(NETWORKS)


def _measure(name: str, args: argparse.Namespace, threads: int) -> dict[str, Any]:
    """Medians in milliseconds by contender, and the image's error beside ONNX Runtime in float32."""
    model, data = args.folder / f"{name}.onnx", args.folder / f"{name}.npz"
    if not (model.exists() and data.exists()):
        _export(name, model, data)
    image = args.folder / f"{name}-{args.precision}.img"
    if not image.exists():
        compile_model(model, "host", image, options=CompileOptions(args.precision, max_error=0))
    with np.load(data) as arrays:
        contenders, inputs = open_images([image], 0, threads, dict(arrays))
    contenders += [open_peer(peer, model, inputs, threads) for peer in PEERS[args.precision]]
    start = time.perf_counter()
    for contender in contenders:
        contender.run()
    runs = max(5, int(args.seconds / (time.perf_counter() - start)))
    reference = open_peer("onnxruntime", model, inputs, threads)
    found = compare([reference, *contenders], runs, warmup=2)[1:]
    return {
        "median_ms": {r.name if r.name != image.name else "image": r.timing.median for r in found},
        "error": found[0].difference,
    }


def _export(name: str, model: Path, data: Path) -> None:
    """The network as ONNX, and its example input."""
    import torch

    from tests.frontends.torch_networks import NETWORKS
    from tests.frontends.torch_zoo import randomise
    from tvm_ipu.frontends.loaders import LoadOptions
    from tvm_ipu.frontends.torch import calls
    from tvm_ipu.frontends.torch.convert import to_onnx

    torch.manual_seed(0)
    module, example = NETWORKS[name]()
    randomise(module)
    options = LoadOptions(example_input=example)
    onnx.save(to_onnx(module.eval(), options), model)
    save_arrays(data, {key: value.numpy() for key, value in calls.make_call(module, options).inputs.items()})


def table(cells: Cells) -> list[str]:
    """Markdown lines: a network in one precision a line, and for each number of threads time and ratio."""
    counts = sorted({key.split()[2] for key in cells}, key=int)
    heads = [f"image, {n} (ms) | best other | ratio" for n in counts]
    lines = [f"| network | precision | {' | '.join(heads)} | error |"]
    lines.append("| --- | --- |" + " --- | --- | --- |" * len(counts) + " --- |")
    for network in sorted({tuple(key.split()[:2]) for key in cells}, key=lambda n: (n[1] != "fp32", n[0])):
        known = [cells.get(" ".join((*network, n))) for n in counts]
        columns = [_columns(cell["median_ms"]) if cell else " |  | " for cell in known]
        error = max(cell["error"] for cell in known if cell)
        lines.append(f"| {' | '.join(network)} | {' | '.join(columns)} | {error:.0e} |")
    return lines


def _columns(medians: dict[str, float]) -> str:
    others = {name: ms for name, ms in medians.items() if name != "image"}
    best = min(others, key=lambda name: others[name])
    return f"{medians['image']:.2f} | {others[best]:.2f} ({best}) | {medians['image'] / others[best]:.2f}"


if __name__ == "__main__":
    main()
