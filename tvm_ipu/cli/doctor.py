"""``tvm-ipu doctor``: what this machine can compile and run."""

from __future__ import annotations

import argparse

from tvm_ipu.base.doctor import Report, TargetCheck, examine
from tvm_ipu.cli.terminal import print_facts, print_table


def configure(parser: argparse.ArgumentParser) -> None:
    """The command has no arguments of its own."""


def execute(args: argparse.Namespace) -> int:
    """Print the machine's features, the tools found, and versions; 1 if something does not work."""
    report = examine()
    print_facts(_machine(report))
    print()
    print_table(("target", "linked with", "images run"), [_row(check) for check in report.targets])
    print()
    print_facts((tool.name, f"{tool.version} ({tool.path})") for tool in report.tools)
    print()
    print_facts((name, release or "not installed") for name, release in report.packages.items())
    for problem in report.problems:
        print(f"\nproblem: {problem}")
    return 1 if report.problems else 0


def _machine(report: Report) -> list[tuple[str, object]]:
    host = report.host
    caches = ((1, host.l1_bytes), (2, host.l2_bytes), (3, host.l3_bytes))
    return [
        ("system", report.system),
        ("python", report.python),
        ("processor", f"{host.model or 'unnamed'}, {host.arch}, {host.cores} cores"),
        (
            "caches",
            ", ".join(f"level {level}: {size >> 10} KiB" for level, size in caches if size) or "unknown",
        ),
        ("CPU features", " ".join(sorted(host.features)) or "unknown"),
        ("--target host", report.target.name if report.target else "none"),
    ]


def _row(check: TargetCheck) -> tuple[str, str, str]:
    where = "here" if check.runs else f"with {check.emulator}" if check.emulator else "on another machine"
    return check.name, check.toolchain or "pip install 'tvm_ipu[cross]'", where
