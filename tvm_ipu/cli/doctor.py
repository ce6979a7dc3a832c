"""``tvm-ipu doctor``: what this machine can compile and run."""

from __future__ import annotations

import argparse


def configure(parser: argparse.ArgumentParser) -> None:
    """The command has no arguments of its own."""


def execute(args: argparse.Namespace) -> int:
    """Print the machine's features, the tools found, and versions."""
    raise NotImplementedError
