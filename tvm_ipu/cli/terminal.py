"""What commands print: tables, aligned facts, and a progress line on stderr."""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager

Progress = Callable[[str, int, int], None]
"""Called with (what is being done, steps done, steps in all)."""


def print_table(columns: Sequence[str], rows: Iterable[Sequence[object]], title: str = "") -> None:
    """Print a table; a column whose name starts with ``>`` is aligned to the right.

    Lines are as long as they need to be where stdout is not a terminal, so that other programs can read them.
    """
    from rich.box import SIMPLE_HEAD
    from rich.console import Console
    from rich.table import Table
    from rich.text import Text

    table = Table(box=SIMPLE_HEAD, title=title or None, title_justify="left", pad_edge=False)
    for column in columns:
        right = column.startswith(">")
        table.add_column(
            column.removeprefix(">"), justify="right" if right else "left", no_wrap=right, overflow="fold"
        )
    for row in rows:
        table.add_row(*(Text(str(cell)) for cell in row))
    console = Console(highlight=False)
    if not console.is_terminal:
        console.width = console.measure(table).maximum
    console.print(table)


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
