"""What a reader of a file is to the fuzzer, and what several of them need."""

from __future__ import annotations

import contextlib
import io
import pickle
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

from tests.fuzz.canary import Canary

Files = dict[str, bytes]
Read = Callable[[Path], "bool | None"]


@dataclass(frozen=True)
class Reader:
    """One format.

    Attributes:
        seeds: Writes whole files into a folder, each example into a folder of its own, or gives them.
        read: Reads what lies in a folder, to where the command has finished with it.
        words: Names that the format knows, for mutations.
        programs: Whether the command starts programs, such as a linker.
        refuses: Whether even whole files are refused, as those are that would run code.
    """

    seeds: Callable[[Path], Iterator[Files]]
    read: Read
    words: Callable[[], Sequence[str]] = tuple
    programs: bool = False
    refuses: bool = False


class InternalError(Exception):
    """A command ended with something else than success or a message; the text has the traceback."""


def command(words: str) -> Read:
    """A reader that runs ``tvm-ipu`` with these words in the current folder; true where it refused."""

    def read(folder: Path) -> bool:
        from tvm_ipu.cli.main import main

        out, err = io.StringIO(), io.StringIO()
        with contextlib.redirect_stdout(out), contextlib.redirect_stderr(err):
            code = main(["-v", *words.split()])
        text = err.getvalue()
        if code not in (0, 1) or "error: internal error" in text or "error: not enough memory" in text:
            raise InternalError(text)
        return code == 1

    return read


def first(folder: Path, *suffixes: str) -> Path:
    """The file in ``folder`` with one of these endings."""
    return next(path for path in sorted(folder.iterdir()) if path.suffix in suffixes)


def text_seeds(name: str, *texts: str) -> Callable[[Path], Iterator[Files]]:
    """A file of each text."""
    return lambda _: iter([{name: text.encode()} for text in texts])


def collect(folder: Path) -> Files:
    """All files below a folder."""
    return {str(p.relative_to(folder)): p.read_bytes() for p in sorted(folder.rglob("*")) if p.is_file()}


def python_pickles(name: str) -> Iterator[Files]:
    """Pickles that would run code."""
    for protocol in (0, 2, 4):
        yield {name: pickle.dumps([{"name": "x", "min": Canary(), "max": [1.0]}], protocol)}


COMPILE = "-o out.img --target x86-64-v2 -j 1"
"""Options of ``compile`` for a result that any machine can make."""
