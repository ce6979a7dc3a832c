"""Images of any target on this machine: as they are, under qemu, or with AMX emulated."""

from __future__ import annotations

import shutil
import subprocess
from collections.abc import Mapping, Sequence
from contextlib import ExitStack
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from tests.unit.amx_kit import AMX, EMULATED, emulation
from tests.unit.link_kit import need_qemu
from tvm_ipu import driver
from tvm_ipu.base.host import read_host
from tvm_ipu.base.target import Target, load_target
from tvm_ipu.runtime.build import build_runner
from tvm_ipu.runtime.session import Session

X86_EMULATOR, X86_EMULATED = ("qemu-x86_64", "-cpu", "max"), ("x86-64-v2", "x86-64-v3")
"""The oldest qemu that is used, 7.2, has no AVX-512."""


def runnable(name: str) -> Target:
    """A target, without what the emulator of AMX provides where it is the one with AMX."""
    target = load_target(name)
    if target.machine == AMX.name:
        return replace(target, features=EMULATED.features, requires=EMULATED.requires)
    return target


def compile_for(target: Target, model: Path, image: Path) -> None:
    """An image for a target as ``runnable`` gives it, which may differ from that of its name."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(driver, "load_target", lambda _: target)
        driver.compile_model(model, target.name, image)


def emulator(target: Target) -> tuple[str, ...]:
    """The command that runs the target's programs, empty on such a machine; skips the test without any."""
    if target.qemu:
        need_qemu(target)
        return target.qemu
    missing = sorted(set(target.requires) - read_host().features)
    if missing and target.machine in X86_EMULATED and shutil.which(X86_EMULATOR[0]):
        return X86_EMULATOR
    if missing:
        pytest.skip(f"needs {', '.join(missing)}")
    return ()


def run_image(
    image: Path, target: Target, feeds: Mapping[str, np.ndarray], outputs: Sequence[str], timeout: int = 300
) -> list[bytes]:
    """Outputs of an image, which lie beside it afterwards if it was emulated.

    Args:
        image: Compiled for ``target``.
        target: As ``runnable`` gives it.
        feeds: Inputs by name, in the image's order.
        outputs: Names of the outputs, in the image's order.
        timeout: Seconds.
    """
    command = emulator(target)
    if not command:
        with ExitStack() as stack:
            if target.machine == AMX.name:
                stack.enter_context(emulation())
            found = stack.enter_context(Session(image)).run(dict(feeds))
            return [found[name].tobytes() for name in outputs]
    files = [image.with_name(f"{name}.bin") for name in feeds]
    for path, array in zip(files, feeds.values(), strict=True):
        path.write_bytes(array.tobytes())
    options = [build_runner(target), image, "--inputs", *files, "--output", image.parent]
    subprocess.run([*command, *map(str, options)], check=True, timeout=timeout, stdout=subprocess.DEVNULL)
    return [(image.parent / f"output_{i}.bin").read_bytes() for i in range(len(outputs))]
