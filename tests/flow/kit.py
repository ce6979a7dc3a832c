"""A small detector in the manner of YOLOv8, its configuration, preprocess script and pictures, as files."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import onnx
from onnx import ModelProto

from tests.unit.config_kit import one_picture
from tests.unit.frontend_kit import constant, make_model, node, value

SIZE = 32
SCRIPT = """import numpy as np
def image_preprocess(image_file, norm=True, new_shape=({size}, {size})):
    im = np.load(image_file)[:new_shape[0], :new_shape[1]]
    im = np.ascontiguousarray(np.expand_dims(im, 0))
    if norm:
        return im.astype(np.float32) / 255
    return im
"""


def detector() -> ModelProto:
    """Convolutions with SiLU, a C2f-like split and sum, two scales joined, a head with sigmoid."""
    rng = np.random.default_rng(8)
    nodes, weights = [], []

    def conv(source: str, result: str, channels: tuple[int, int], kernel: int = 3, stride: int = 1) -> None:
        into, out = channels
        weights.append(
            constant(
                f"{result}.w",
                rng.normal(0, (2 / (into * kernel**2)) ** 0.5, (out, into, kernel, kernel)),
                "float32",
            )
        )
        weights.append(constant(f"{result}.b", rng.normal(0, 0.1, out), "float32"))
        pads = [kernel // 2] * 4
        nodes.append(
            node("Conv", f"{source} {result}.w {result}.b", f"{result}.c", pads=pads, strides=[stride] * 2)
        )
        nodes.append(node("Sigmoid", f"{result}.c", f"{result}.s"))
        nodes.append(node("Mul", f"{result}.c {result}.s", result))

    conv("images", "stem", (3, 16), 3, 2)
    conv("stem", "down", (16, 32), 3, 2)
    nodes.append(node("Split", "down halves", "left right", axis=1))
    weights.append(constant("halves", [16, 16]))
    conv("right", "inner", (16, 16))
    nodes.append(node("Add", "right inner", "added"))
    nodes.append(node("Concat", "left right added", "joined", axis=1))
    conv("joined", "fused", (48, 32), 1)
    nodes.append(node("MaxPool", "fused", "pooled", kernel_shape=[5, 5], pads=[2, 2, 2, 2], strides=[1, 1]))
    nodes.append(node("Concat", "fused pooled", "both", axis=1))
    conv("both", "deep", (64, 32), 3, 2)
    weights.append(constant("twice", [1, 1, 2, 2], "float32"))
    nodes.append(
        node(
            "Resize",
            "deep  twice",
            "up",
            mode="nearest",
            coordinate_transformation_mode="asymmetric",
            nearest_mode="floor",
        )
    )
    nodes[-1].input[:] = ["deep", "", "twice"]
    nodes.append(node("Concat", "up fused", "neck", axis=1))
    conv("neck", "head", (64, 16))
    weights.append(constant("out.w", rng.normal(0, 0.2, (9, 16, 1, 1)), "float32"))
    weights.append(constant("flat", [1, 9, -1]))
    nodes += [
        node("Conv", "head out.w", "raw"),
        node("Reshape", "raw flat", "rows"),
        node("Sigmoid", "rows", "output0"),
    ]  # fmt: skip
    inputs = [value("images", [1, 3, SIZE, SIZE])]
    return make_model(nodes, inputs, [value("output0", [1, 9, (SIZE // 4) ** 2])], weights)


def picture(seed: int) -> np.ndarray:
    """Smooth colours with some noise, uint8 [SIZE, SIZE, RGB]."""
    rng = np.random.default_rng(seed)
    rows, columns = np.mgrid[:SIZE, :SIZE] / SIZE
    waves = [np.sin(6 * (rng.random() * rows + rng.random() * columns) + k) for k in range(3)]
    pixels = 127 + 90 * np.stack(waves, 2) + rng.normal(0, 12, (SIZE, SIZE, 3))
    return np.clip(np.round(pixels), 0, 255).astype(np.uint8)


def write_files(folder: Path, fed: str = "BGR", count: int = 4) -> None:
    """Model, configuration, script, pictures and their list."""
    onnx.save(detector(), folder / "yolo.onnx")
    (folder / "input_config.ini").write_text(one_picture("images", "output0", fed=fed))
    (folder / "yolo.py").write_text(SCRIPT.format(size=SIZE))
    pictures = folder / "pictures"
    pictures.mkdir()
    names = [f"pictures/{number}.npy" for number in range(count)]
    for number, name in enumerate(names):
        np.save(folder / name, picture(number))
    (folder / "input_list.txt").write_text("\n".join(names) + "\n")
