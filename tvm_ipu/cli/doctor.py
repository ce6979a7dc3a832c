"""``tvm-ipu doctor``: what this machine can compile and run."""

from __future__ import annotations

import argparse

from tvm_ipu.cli.terminal import print_facts, print_table, size


def configure(parser: argparse.ArgumentParser) -> None:
    """The command has no arguments of its own."""


def execute(args: argparse.Namespace) -> int:
    """Print the machine, its tools, versions and what works for each target; 1 if something does not work."""
    from tvm_ipu.base.doctor import examine
    from tvm_ipu.image.schema import VERSION_MAJOR, VERSION_MINOR

    report = examine()
    host = report.host
    caches = ((1, host.l1_bytes), (2, host.l2_bytes), (3, host.l3_bytes))
    print_facts(
        [
            ("system", report.system),
            ("processor", f"{host.model or host.arch}, {host.cores} cores"),
            ("caches", ", ".join(f"L{level} {size(n)}" for level, n in caches if n) or "unknown"),
            ("features", " ".join(sorted(host.features))),
            ("host target", report.target.name if report.target else "none"),
            ("python", report.python),
            *((name, version or "not installed") for name, version in report.packages.items()),
            ("image format", f"{VERSION_MAJOR}.{VERSION_MINOR}"),
        ]
    )
    print("\nTools")
    print_table(("tool", "path", "version"), [(t.name, t.path, t.version) for t in report.tools])
    print("\nTargets")
    rows = [
        (t.name, t.toolchain or "nothing", "here" if t.runs else t.emulator or "elsewhere")
        for t in report.targets
    ]
    print_table(("target", "linked with", "runs"), rows)
    for problem in report.problems:
        print(f"\nproblem: {problem}")
    return 1 if report.problems else 0
