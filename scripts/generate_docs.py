"""Writes what the documentation says about commands and targets; ``--check`` only says whether it is fresh.

docs/cli.md comes from the commands' own parsers, README.md's table of targets from targets/*.toml, the rules
in docs/input-config.md from tvm_ipu/base/input_config.py.
"""

from __future__ import annotations

import argparse
import re
import sys
from pathlib import Path

from tvm_ipu.base.input_config import KEYS
from tvm_ipu.base.target import load_target, target_names
from tvm_ipu.cli.main import COMMANDS, build_parser

ROOT = Path(__file__).resolve().parent.parent
HEAD = """\
# Command line

<!-- Written by scripts/generate_docs.py from the commands themselves; do not edit. -->

`tvm-ipu COMMAND ...`, or `python -m tvm_ipu COMMAND ...`. Words in an option's name may be joined by `-` or
by `_`. Every command takes `-v` (print each step, and tracebacks of errors) and `--help`.

A command that cannot do its work prints `error: ...` and, where there is advice, `hint: ...` on stderr and
exits with 1, leaving no half-written file. Ctrl-C exits with 130.
"""
EVERYWHERE = {"help", "verbose"}
"""Arguments that every command has."""


def cli_page(old: str) -> str:
    """docs/cli.md; nothing of the old page is kept."""
    parser = build_parser(tuple(COMMANDS))
    (subparsers,) = (a for a in parser._actions if isinstance(a, argparse._SubParsersAction))
    return "\n".join([HEAD, *(_section(name, subparsers.choices[name]) for name in COMMANDS)])


def _section(name: str, parser: argparse.ArgumentParser) -> str:
    rows, inner = [], []
    for action in parser._actions:
        if isinstance(action, argparse._SubParsersAction):
            inner += [_section(f"{name} {word}", one) for word, one in action.choices.items()]
        elif action.dest not in EVERYWHERE:
            rows.append(_row(action))
    head = f"## {name}\n{parser.description}\n"
    table = ["| argument | meaning |", "| --- | --- |", *rows, ""] if rows else []
    return "\n".join([head, *table, *inner])


def _row(action: argparse.Action) -> str:
    value = "" if action.nargs == 0 else _value(action)
    names = ", ".join(f"`{name}`" for name in action.option_strings)
    spelling = f"{names} `{value}`" if names and value else names or f"`{value}`"
    return f"| {spelling} | {(action.help or '') % vars(action)} |"


def _value(action: argparse.Action) -> str:
    if action.choices:
        return "\\|".join(map(str, action.choices))
    words = (action.metavar,) if isinstance(action.metavar, str) else action.metavar or (action.dest.upper(),)
    return " ".join(words) + (" ..." if action.nargs in ("+", "*") else "")


def readme(old: str) -> str:
    """README.md with its table of targets replaced."""
    targets = [load_target(name) for name in target_names()]
    rows = [f"| `{t.name}` | {t.arch} | {t.description} |" for t in targets]
    table = "\n".join(["| target | architecture | what it is |", "| --- | --- | --- |", *rows])
    return re.sub(r"(<!-- targets -->\n).*?(<!-- /targets -->)", rf"\1{table}\n\2", old, flags=re.DOTALL)


def input_config(old: str) -> str:
    """docs/input-config.md with its table of keys replaced."""
    rows = []
    for section, keys in KEYS.items():
        rows += ["", f"### [{section}]", "| key | values | meaning |", "| --- | --- | --- |"]
        for name, key in keys.items():
            values = ", ".join(key.words) or "free"
            rows.append(f"| `{name}` | {values} | {'Required. ' if key.required else ''}{key.rule} |")
    table = "\n".join(rows)
    return re.sub(r"(<!-- keys -->\n).*?(<!-- /keys -->)", rf"\1{table}\n\n\2", old, flags=re.DOTALL)


PAGES = {
    ROOT / "docs" / "cli.md": cli_page,
    ROOT / "README.md": readme,
    ROOT / "docs" / "input-config.md": input_config,
}


def main() -> int:
    """Write or check the pages."""
    stale = []
    for page, write in PAGES.items():
        old = page.read_text(encoding="utf-8") if page.is_file() else ""
        new = write(old)
        if new != old:
            stale.append(page)
            if "--check" not in sys.argv:
                page.write_text(new, encoding="utf-8")
    if stale and "--check" in sys.argv:
        names = ", ".join(str(page.relative_to(ROOT)) for page in stale)
        print(f"out of date: {names}; run python scripts/generate_docs.py", file=sys.stderr)
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
