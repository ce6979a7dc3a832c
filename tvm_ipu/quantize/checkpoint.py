"""Statistics beside the output while calibration runs, so that an interrupted one goes on where it was.

The file holds a checksum of the network and tensors, and of every sample that was counted: it is used for the
same network and samples only.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from itertools import count
from pathlib import Path

import numpy as np

from tvm_ipu.base.arrays import read_arrays
from tvm_ipu.base.errors import CalibrationError
from tvm_ipu.base.files import parse_json, whole_file
from tvm_ipu.base.graph import Array, Graph
from tvm_ipu.quantize.statistics import Statistics

_VERSION = 1


class Checkpoint:
    """The file of one calibration.

    Attributes:
        samples: Checksums of the samples that the statistics are about, in order.
    """

    def __init__(self, path: Path | None, key: str) -> None:
        self._path = path
        self._key = key
        self.samples: list[str] = []

    def read(self) -> dict[str, Statistics]:
        """Statistics by tensor; none where there is no file, or it is another calibration's, or damaged."""
        if self._path is None or not self._path.exists():
            return {}
        try:
            archive = read_arrays(self._path)
            if not isinstance(archive, dict):
                return {}
            facts = parse_json(str(archive["facts"]))
            if (facts["version"], facts["key"]) != (_VERSION, self._key):
                return {}
            found: dict[str, dict[str, Array]] = {name: {} for name in facts["tensors"]}
            for name, array in archive.items():
                number, _, part = name.partition("/")
                if part:
                    found[facts["tensors"][int(number)]][part] = array
            statistics = {name: Statistics.from_arrays(arrays) for name, arrays in found.items()}
            self.samples = [str(digest) for digest in facts["samples"]]
        except (OSError, ValueError, KeyError, IndexError, TypeError, AttributeError):
            return {}
        return statistics

    def write(self, statistics: Mapping[str, Statistics]) -> None:
        """Replace the file.

        Raises:
            CalibrationError: It cannot be written.
        """
        if self._path is None:
            return
        facts = {"version": _VERSION, "key": self._key, "samples": self.samples, "tensors": list(statistics)}
        arrays = {
            f"{number}/{part}": array
            for number, one in enumerate(statistics.values())
            for part, array in one.to_arrays().items()
        }
        try:
            with whole_file(self._path) as file:
                np.savez(file, facts=np.array(json.dumps(facts)), **arrays)  # type: ignore[arg-type]
        except OSError as err:
            raise CalibrationError(f"cannot write '{self._path}': {err.strerror}") from err


def part_of(path: Path, number: int) -> Path:
    """The file of one of several passes over the samples."""
    return path.with_name(f"{path.name}.{number}") if number else path


def remove(path: Path) -> None:
    """Delete the files of all passes."""
    for number in count():
        try:
            part_of(path, number).unlink()
        except OSError:
            return


def graph_key(graph: Graph, *settings: object) -> str:
    """A checksum of a network and of settings."""
    digest = hashlib.sha256(repr([graph.nodes, graph.inputs, graph.outputs, settings]).encode())
    for name, value in graph.constants.items():
        digest.update(name.encode() + np.ascontiguousarray(value).tobytes())
    return digest.hexdigest()


def sample_key(sample: Mapping[str, Array]) -> str:
    """A checksum of a sample."""
    digest = hashlib.sha256()
    for name in sorted(sample):
        digest.update(f"{name} {sample[name].dtype} {sample[name].shape}".encode())
        digest.update(np.ascontiguousarray(sample[name]).tobytes())
    return digest.hexdigest()[:32]
