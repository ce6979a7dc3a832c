"""The command ``tvm-ipu``: finds the command, parses its arguments and turns errors into messages.

Each command is a module of this package with two functions: ``configure(parser)`` declares the arguments,
``execute(args)`` does the work and returns the exit code. Only the modules named on the command line are
imported, and they import the compiler inside ``execute``: ``--help`` and ``run`` start without TVM.
"""

from __future__ import annotations

import argparse
import difflib
import logging
import os
import sys
import traceback
from collections.abc import Collection, Iterable, Iterator, Sequence
from contextlib import contextmanager, nullcontext
from importlib import import_module
from typing import Any, NoReturn

from tvm_ipu import __version__
from tvm_ipu.base.errors import OptionError, TvmIpuError
from tvm_ipu.base.files import advice
from tvm_ipu.base.without_torch import import_tvm_without_torch

COMMANDS = {
    "compile": "compile a model into an image for a target",
    "run": "run an image",
    "simulate": "run a float or fixed stage, or an image, on samples",
    "accuracy": "compare a fixed stage with its float stage, tensor by tensor, and mend it",
    "tune": "make a model's kernels faster by measuring, and record how",
    "bench": "time images side by side, also against other runtimes",
    "inspect": "describe a model or an image",
    "convert": "turn a model into a float stage, or an ONNX model into an optimised one of fixed shapes",
    "calibrate": "turn a float stage into a fixed one, by what samples show",
    "export": "write a stage's network as an ONNX model",
    "targets": "list the targets, or describe one",
    "doctor": "describe this machine, its compilers and the versions in use",
}
INTERRUPTED = 130  # 128 + SIGINT, what a shell reports for a program that Ctrl-C ended
BROKEN_PIPE = 141  # 128 + SIGPIPE


class _Parser(argparse.ArgumentParser):
    """A parser that reports a wrong command line like any other mistake of the user's."""

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self.set_defaults(parser=self)  # that of the command, which comes last

    def error(self, message: str) -> NoReturn:
        raise OptionError(message, f"see '{self.prog} --help'")

    def refuse(self, words: Sequence[str]) -> NoReturn:
        """Report words that are no arguments of the command, with options that are spelt like them."""
        near = [
            option
            for word in words
            if word.startswith("-")
            for option in difflib.get_close_matches(
                word.partition("=")[0], self._option_string_actions, 1, 0.7
            )
        ]
        meant = f"did you mean {' '.join(near)}? " if near else ""
        raise OptionError(f"unrecognized arguments: {' '.join(words)}", f"{meant}see '{self.prog} --help'")


def build_parser(commands: Collection[str]) -> argparse.ArgumentParser:
    """The parser of the command line, with the arguments of those in ``commands`` (names of ``COMMANDS``)."""
    parser = _Parser(
        prog="tvm-ipu",
        description="Compiles a trained network into one file for a chip, and runs that file.",
        epilog="Words in an option's name may be joined by '-' or by '_'.",
        allow_abbrev=False,
    )
    parser.add_argument("--version", action="version", version=f"tvm-ipu {__version__}")
    _add_verbose(parser, default=False)
    subparsers = parser.add_subparsers(dest="command", metavar="COMMAND", required=True)
    for name, summary in COMMANDS.items():
        subparser = subparsers.add_parser(
            name, help=summary, description=f"{summary[0].upper()}{summary[1:]}.", allow_abbrev=False
        )
        if name in commands:
            import_module(f"tvm_ipu.cli.{name}").configure(subparser)
        _add_verbose(subparser, default=argparse.SUPPRESS)
    return parser


def _add_verbose(parser: argparse.ArgumentParser, default: bool | str) -> None:
    parser.add_argument(
        "-v",
        "--verbose",
        action="store_true",
        default=default,
        help="print each step, and tracebacks of errors",
    )


def normalise(words: Iterable[str]) -> list[str]:
    """The words with every option spelt with dashes: ``--dump_ir=a_b`` -> ``--dump-ir=a_b``."""
    result = []
    for word in words:
        option, equals, value = word.partition("=")
        if option.startswith("--"):
            option = "--" + option[2:].replace("_", "-")
        result.append(option + equals + value)
    return result


def main(words: Sequence[str] | None = None) -> int:
    """Run one command and return its exit code: 0, 1 after an error, 130 after Ctrl-C.

    Args:
        words: The command line without the program's name; by default that of this process.
    """
    try:
        code = _run_command(normalise(sys.argv[1:] if words is None else words))
    except BrokenPipeError:
        code = BROKEN_PIPE
    try:
        sys.stdout.flush()
    except OSError:
        # The reader of stdout is gone or its disk is full; the interpreter would fail to flush it at exit.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
    return code


def _run_command(words: Sequence[str]) -> int:
    import_tvm_without_torch()
    try:
        words = expand(words)
        args, unknown = build_parser(words).parse_known_args(words)
        if unknown:
            args.parser.refuse(unknown)
        with _log_to_stderr() if args.verbose else nullcontext():
            code: int = import_module(f"tvm_ipu.cli.{args.command}").execute(args)
        sys.stdout.flush()
        return code
    except KeyboardInterrupt:
        return INTERRUPTED
    except BrokenPipeError:
        raise
    except Exception as err:
        if not {"-v", "--verbose"}.isdisjoint(words):
            traceback.print_exc()
        message, hint = describe(err)
        print(f"error: {message}", file=sys.stderr)
        if hint:
            print(f"hint: {hint}", file=sys.stderr)
        return 1


@contextmanager
def _log_to_stderr() -> Iterator[None]:
    """What modules log with the logger ``tvm_ipu`` or one below it is shown."""
    logger, handler = logging.getLogger("tvm_ipu"), logging.StreamHandler()
    logger.addHandler(handler)
    logger.setLevel(logging.INFO)
    try:
        yield
    finally:
        logger.removeHandler(handler)
        logger.setLevel(logging.NOTSET)


def expand(words: Sequence[str]) -> list[str]:
    """The words with what the command lets users leave out."""
    for at, word in enumerate(words):
        if word == "convert":
            expand = import_module("tvm_ipu.cli.convert").expand
            return [*words[: at + 1], *expand(words[at + 1 :])]
        if not word.startswith("-"):
            break
    return list(words)


def describe(err: Exception) -> tuple[str, str]:
    """Message and hint (which may be empty) for an exception that ended a command."""
    if isinstance(err, TvmIpuError):
        cause = err.__cause__
        return err.message, err.hint or (advice(cause) if isinstance(cause, OSError) else "")
    if isinstance(err, MemoryError):
        return "not enough memory", "close other programs, or compile for fewer or smaller input shapes"
    if isinstance(err, OSError):
        where = f"{err.filename}: " if err.filename else ""
        return f"{where}{err.strerror or err}", advice(err)
    return (
        f"internal error: {type(err).__name__}: {err}",
        "this is a mistake in tvm_ipu; run again with -v and report what it prints",
    )
