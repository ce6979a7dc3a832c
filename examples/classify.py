"""Classify photographs with an image of an ImageNet network: the five likeliest classes of each.

    tvm-ipu compile mobilenet_v2.onnx --target host --output mobilenet_v2.img
    python examples/classify.py mobilenet_v2.img cat.jpg dog.jpg --labels labels.txt

Needs Pillow. Nothing of the compiler is loaded: an image and the runtime are enough.
"""

from __future__ import annotations

import argparse
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from tvm_ipu import Session

MEAN = np.array([0.485, 0.456, 0.406], np.float32)
STD = np.array([0.229, 0.224, 0.225], np.float32)


def preprocess(photo: Path) -> NDArray[np.float32]:
    """The centre of a photograph as the network wants it: float32 [1,3,224,224], RGB, normalised."""
    with Image.open(photo) as opened:
        image = opened.convert("RGB")
    scale = 256 / min(image.size)
    image = image.resize((round(image.width * scale), round(image.height * scale)), Image.Resampling.BILINEAR)
    left, top = (image.width - 224) // 2, (image.height - 224) // 2
    pixels = np.asarray(image.crop((left, top, left + 224, top + 224)), np.float32) / 255
    return ((pixels - MEAN) / STD).transpose(2, 0, 1)[None].astype(np.float32, copy=False)


def softmax(scores: NDArray[np.float32]) -> NDArray[np.float32]:
    """Probabilities from the scores of one photograph."""
    powers = np.exp(scores - scores.max())
    probabilities: NDArray[np.float32] = powers / powers.sum()
    return probabilities


def main() -> None:
    """Print the classes of each photograph, and how many are right where the file names tell."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("image", type=Path)
    parser.add_argument("photos", type=Path, nargs="+")
    parser.add_argument("--labels", type=Path, help="names of the classes, one a line")
    parser.add_argument(
        "--labelled", action="store_true", help="file names end in _<class>: count what is right"
    )
    args = parser.parse_args()

    names = args.labels.read_text(encoding="utf-8").splitlines() if args.labels else []
    ranks = []
    with Session(args.image) as session:
        for photo in args.photos:
            (scores,) = session.run({session.inputs[0].name: preprocess(photo)}).values()
            probabilities = softmax(scores[0])
            order = probabilities.argsort()[::-1]
            top = (f"{names[i] if names else i} {probabilities[i]:.0%}" for i in order[:5])
            print(f"{photo.name}: {', '.join(top)}")
            if args.labelled:
                ranks.append(list(order).index(int(photo.stem.rpartition("_")[2])))
    if ranks:
        first, five = sum(rank < 1 for rank in ranks), sum(rank < 5 for rank in ranks)
        print(f"right: {first} of {len(ranks)}; among the first five: {five}")


if __name__ == "__main__":
    main()
