"""What commands print: tables, aligned facts, and a progress line on stderr."""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager

Progress = Callable[[str, int, int], None]
"""Called with (what is being done, steps done, steps in all)."""


def print_table(columns: Sequence[str], rows: Iterable[Sequence[object]]) -> None:
    """Print a table; a column whose name starts with ``>`` is aligned to the right."""
    names = tuple(column.removeprefix(">") for column in columns)
    cells = [names, *(tuple(map(str, row)) for row in rows)]
    widths = [max(map(len, column)) for column in zip(*cells, strict=True)]
    cells.insert(1, tuple("-" * width for width in widths))
    for row in cells:
        fields = (
            f"{cell:{'>' if column.startswith('>') else '<'}{width}}"
            for cell, column, width in zip(row, columns, widths, strict=True)
        )
        print("  ".join(fields).rstrip())


def print_facts(facts: Iterable[tuple[str, object]]) -> None:
    """Print ``name  value`` lines with the values aligned."""
    facts = list(facts)
    width = max((len(name) for name, _ in facts), default=0)
    for name, value in facts:
        print(f"{name:<{width}}  {value}")


@contextmanager
def progress(verbose: bool) -> Iterator[Progress | None]:
    """Shows how far a long job is: a bar on a terminal, a line a step with ``verbose``, else nothing."""
    if verbose:
        yield _step_printer()
    elif sys.stderr.isatty():
        from rich.console import Console
        from rich.progress import (
            BarColumn,
            MofNCompleteColumn,
            Progress as Bar,
            TextColumn,
            TimeElapsedColumn,
        )

        columns = TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TimeElapsedColumn()
        with Bar(*columns, console=Console(stderr=True), transient=True) as bar:
            task = bar.add_task("", total=None)
            yield lambda what, done, total: bar.update(task, description=what, completed=done, total=total)
    else:
        yield None


def _step_printer() -> Progress:
    """Prints each new step once, with the seconds since the start."""
    from time import perf_counter

    start = perf_counter()
    seen = ""

    def report(what: str, done: int, total: int) -> None:
        nonlocal seen
        if what != seen:
            seen = what
            print(f"{perf_counter() - start:7.2f} s  {what}", file=sys.stderr)

    return report


def scaled(value: float, unit: str) -> str:
    """``value`` with three digits and a decimal prefix: ``4.09 GFLOP``."""
    for prefix in ("", "k", "M", "G"):
        if abs(value) < 999.5:
            return f"{value:.3g} {prefix}{unit}".rstrip()
        value /= 1000
    return f"{value:.3g} T{unit}"


def size(count: int) -> str:
    """A number of bytes as people read it: ``97.5 MiB``."""
    value = float(count)
    for unit in ("B", "KiB", "MiB"):
        if value < 1000:
            return f"{value:.3g} {unit}"
        value /= 1024
    return f"{value:.3g} GiB"
