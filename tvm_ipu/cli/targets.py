"""``tvm-ipu targets``: the chips that images can be compiled for."""

from __future__ import annotations

import argparse
from dataclasses import fields

from tvm_ipu.base.chip import Chip
from tvm_ipu.base.target import Target, load_target, target_names
from tvm_ipu.cli.terminal import print_facts, print_table


def configure(parser: argparse.ArgumentParser) -> None:
    """Declare the arguments of the command."""
    parser.add_argument(
        "name", nargs="?", metavar="NAME", help="target to describe; all are listed without it"
    )


def execute(args: argparse.Namespace) -> int:
    """Print all targets, or everything that is known of one."""
    if args.name:
        target = load_target(args.name)
        _describe(target)
        if target.chip:
            print(f"\nThe chip {target.chip.name}")
            _describe(target.chip)
    else:
        targets = [load_target(name) for name in target_names()]
        print_table(
            ("target", "architecture", "description"), [(t.name, t.arch, t.description) for t in targets]
        )
        chips = [load_target(name) for name in target_names("ipu")]
        rows = [(t.chip.name, t.numerics, t.chip.description) for t in chips if t.chip]
        print(
            "\nChips without machine code of their own: NAME is simulated here, NAME@TARGET on another target"
        )
        print_table(("target", "numerics", "description"), rows)
        print(f"host is {load_target('host').name} here")
    return 0


def _describe(described: Target | Chip) -> None:
    """Print everything that a file says."""
    values = ((field.name, getattr(described, field.name)) for field in fields(described))
    print_facts(
        (name, _text(value))
        for name, value in values
        if name != "chip" and value not in ("", (), frozenset())
    )


def _text(value: object) -> str:
    if isinstance(value, frozenset):
        value = tuple(sorted(value))
    return " ".join(map(str, value)) if isinstance(value, tuple) else str(value)
