"""Writes docs/cli.md from the commands' own parsers; ``--check`` only says whether the file is up to date."""

from __future__ import annotations

import argparse
import sys
from pathlib import Path

from tvm_ipu.cli.main import COMMANDS, build_parser

PAGE = Path(__file__).resolve().parent.parent / "docs" / "cli.md"
HEAD = """\
# Command line

<!-- Written by scripts/cli_reference.py from the commands themselves; do not edit. -->

`tvm-ipu COMMAND ...`, or `python -m tvm_ipu COMMAND ...`. Words in an option's name may be joined by `-` or
by `_`. Every command takes `-v` (print each step, and tracebacks of errors) and `--help`.

A command that cannot do its work prints `error: ...` and, where there is advice, `hint: ...` on stderr and
exits with 1, leaving no half-written file. Ctrl-C exits with 130.
"""
EVERYWHERE = {"help", "verbose"}
"""Arguments that every command has."""


def reference() -> str:
    """The page."""
    parser = build_parser(tuple(COMMANDS))
    (subparsers,) = (a for a in parser._actions if isinstance(a, argparse._SubParsersAction))
    return "\n".join([HEAD, *(_section(name, subparsers.choices[name]) for name in COMMANDS)])


def _section(name: str, parser: argparse.ArgumentParser) -> str:
    rows = [_row(action) for action in parser._actions if action.dest not in EVERYWHERE]
    head = f"## {name}\n{parser.description}\n"
    return "\n".join([head, "| argument | meaning |", "| --- | --- |", *rows, ""])


def _row(action: argparse.Action) -> str:
    value = "" if action.nargs == 0 else _value(action)
    names = ", ".join(f"`{name}`" for name in action.option_strings)
    spelling = f"{names} `{value}`" if names and value else names or f"`{value}`"
    return f"| {spelling} | {action.help} |".replace("`|", "`\\|")


def _value(action: argparse.Action) -> str:
    if action.choices:
        return ",".join(map(str, action.choices))
    words = (action.metavar,) if isinstance(action.metavar, str) else action.metavar or (action.dest.upper(),)
    return " ".join(words) + (" ..." if action.nargs in ("+", "*") else "")


def main() -> int:
    """Write or check the page."""
    text = reference()
    if sys.argv[1:] == ["--check"]:
        if PAGE.is_file() and PAGE.read_text(encoding="utf-8") == text:
            return 0
        print(f"{PAGE} is out of date: run python scripts/cli_reference.py", file=sys.stderr)
        return 1
    PAGE.write_text(text, encoding="utf-8")
    return 0


if __name__ == "__main__":
    sys.exit(main())
