"""Reads all of a Keras file's HDF5 once, in a process of its own, whose end says whether that can be done.

The HDF5 library crashes on some damaged files, and goes round in circles on others.

    python -m tvm_ipu.frontends.tensorflow.hdf5_probe net.h5
"""

from __future__ import annotations

import importlib
import io
import os
import resource
import subprocess
import sys
import zipfile
from pathlib import Path
from typing import Any

from tvm_ipu.base.errors import ModelError

SECONDS, BYTES_A_SECOND = 10, 10_000_000
"""Processor time that a file may take: so much, and more by its size."""


def probe(path: Path) -> None:
    """See that HDF5 can read the file, or those in the archive.

    Raises:
        ModelError: It cannot.
    """
    paths = [str(Path(__file__).parents[3]), *filter(None, [os.environ.get("PYTHONPATH")])]
    command = [sys.executable, "-m", "tvm_ipu.frontends.tensorflow.hdf5_probe", str(path)]
    env = {**os.environ, "PYTHONPATH": os.pathsep.join(paths)}
    found = subprocess.run(command, capture_output=True, text=True, errors="replace", env=env, check=False)
    if found.returncode:
        reason = (found.stderr.strip().splitlines() or ["the HDF5 library fails on it"])[-1]
        raise ModelError(f"'{path}' is not a Keras model, or it is truncated: {reason}")


def _read(name: str, one: Any) -> None:
    for key in one.attrs:
        one.attrs[key]
    if hasattr(one, "dtype"):
        one[()]


def _read_all(source: Any) -> None:
    with importlib.import_module("h5py").File(source, "r") as file:
        _read("", file)
        file.visititems(_read)


def _main(path: Path) -> None:
    seconds = SECONDS + path.stat().st_size // BYTES_A_SECOND
    resource.setrlimit(resource.RLIMIT_CPU, (seconds, seconds))
    if not zipfile.is_zipfile(path):
        _read_all(path)
        return
    with zipfile.ZipFile(path) as archive:
        for name in archive.namelist():
            if name.endswith(".h5"):
                _read_all(io.BytesIO(archive.read(name)))


if __name__ == "__main__":
    try:
        _main(Path(sys.argv[1]))
    except Exception as err:  # h5py and zipfile raise errors of all kinds
        sys.exit(f"{type(err).__name__}: {err}")
