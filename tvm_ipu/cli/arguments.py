"""Arguments that several commands share, and types of option values."""

from __future__ import annotations

import argparse
import math
from collections.abc import Sequence
from pathlib import Path

from tvm_ipu.base.errors import OptionError
from tvm_ipu.base.host import read_host
from tvm_ipu.base.options import PRECISIONS


def add_model(parser: argparse.ArgumentParser, kind: str, meaning: str) -> None:
    """Declare what a command reads, a word of its own or ``-m``; ``given_model`` gives its path.

    Args:
        parser: Of the command.
        kind: What the help calls it: ``STAGE``, ``MODEL`` or ``FILE``.
        meaning: What it may be, for the help.
    """
    parser.add_argument("model", type=Path, nargs="?", metavar=kind, help=meaning)
    parser.add_argument(
        "-m", "--model", "--model-file", dest="model_option", type=Path, metavar=kind, help="the same"
    )


def given_model(args: argparse.Namespace, kind: str) -> Path:
    """The path that ``add_model`` declared.

    Raises:
        OptionError: It is not given, or twice.
    """
    if (args.model is None) == (args.model_option is None):
        raise OptionError(f"give one {kind.lower()}, as {kind} or as -m/--model", "see --help")
    path: Path = args.model or args.model_option
    return path


def add_precision(parser: argparse.ArgumentParser) -> None:
    """Declare ``--precision``."""
    parser.add_argument(
        "--precision",
        choices=PRECISIONS,
        default="fp32",
        help="type of weights and activations inside; inputs and outputs keep the model's (default: fp32)",
    )


def add_tuning_records(parser: argparse.ArgumentParser, meaning: str) -> None:
    """Declare ``--tuning-records``."""
    parser.add_argument(
        "--tuning-records", type=Path, action="append", default=[], metavar="RECORDS", help=meaning
    )


def add_target(parser: argparse.ArgumentParser, default: str | None = "host") -> None:
    """Declare ``--target``, under the names that other toolchains use as well."""
    meaning = (
        "host, the machine this runs on" if default else "that of a stage, or host, the machine this runs on"
    )
    parser.add_argument(
        "-t",
        "--target",
        "--soc-version",
        "--ipu-version",
        default=default,
        metavar="TARGET",
        help=f"chip to compile for, see 'tvm-ipu targets' (default: {meaning})",
    )


def add_input_shapes(
    parser: argparse.ArgumentParser,
    purpose: str = "shapes of the inputs, needed where the model leaves dimensions open",
) -> None:
    """Declare ``--input-shapes`` (all in one word) and ``--input-shape`` (a word an input)."""
    parser.add_argument(
        "--input-shapes",
        action="extend",
        nargs=1,
        default=[],
        metavar="SHAPES",
        help=f"{purpose}: 'data:[1,3,224,224] ids:[1,128]', 'data=1,3,224,224 ids=1,128', or the shapes "
        "alone in the model's order, '1,3,224,224:1,128'",
    )
    parser.add_argument(
        "--input-shape",
        dest="input_shapes",
        action="extend",
        nargs="+",
        default=[],
        metavar="NAME=SHAPE",
        help="the same, with one or more words, an input each",
    )


def add_batch(parser: argparse.ArgumentParser) -> None:
    """Declare ``--batch`` of one size."""
    parser.add_argument(
        "-b",
        "--batch",
        type=positive,
        metavar="N",
        help="first dimension of the inputs that leave it open, or of all where none does",
    )


def add_sample_files(
    parser: argparse._ActionsContainer, required: bool, processes: int = 1, meaning: str = "1"
) -> None:
    """Declare samples, what makes arrays of them, and how it runs.

    Args:
        parser: Of the command, or a group of it.
        required: Whether samples have to be given.
        processes: Default of ``--num-process``.
        meaning: That default in words.
    """
    parser.add_argument(
        "-i",
        "--image",
        type=Path,
        required=required,
        metavar="FILES",
        help="samples: a file, a folder, or a list of files (docs/samples.md)",
    )
    parser.add_argument(
        "-n",
        "--preprocess",
        required=required,
        metavar="SCRIPTS",
        help="Python files with image_preprocess(path, norm=True), or names of built-in preprocessing, with "
        "commas between the inputs",
    )
    parser.add_argument(
        "--num-process",
        type=positive,
        default=processes,
        metavar="N",
        help=f"processes that read samples (default: {meaning})",
    )
    parser.add_argument(
        "--timeout",
        type=positive,
        default=300,
        metavar="S",
        help="seconds that a script has for a sample (default: %(default)s)",
    )


def add_threads(parser: argparse.ArgumentParser) -> None:
    """Declare ``--threads``, whose value ``thread_count`` gives."""
    parser.add_argument(
        "--threads",
        type=positive,
        metavar="N",
        help="threads that share the work (default: one a physical core)",
    )


def thread_count(args: argparse.Namespace) -> int:
    """Value of ``--threads``, or its default on this machine."""
    return args.threads or read_host().cores


def checked_output(path: Path, suffixes: Sequence[str] = (), option: str = "-o/--output") -> Path:
    """A file to write, whose folder is there; looked at before any work.

    Raises:
        OptionError: Its folder is missing, or its name ends in none of ``suffixes``.
    """
    if suffixes and path.suffix.lower() not in suffixes:
        raise OptionError(f"{option}: '{path}' does not end in {' or '.join(suffixes)}", "name it so")
    if not path.parent.is_dir():
        if path.parent.exists():
            raise OptionError(f"{option}: '{path}': '{path.parent}' is a file", "it should be a folder")
        raise OptionError(f"{option}: '{path}': there is no folder '{path.parent}'", "make it first")
    return path


def make_folder(path: Path) -> None:
    """A folder to write into.

    Raises:
        OptionError: There is a file of that name.
    """
    try:
        path.mkdir(parents=True, exist_ok=True)
    except (FileExistsError, NotADirectoryError) as err:
        raise OptionError(f"-o/--output: '{path}' is no folder", "give another name") from err


def comma_list(text: str) -> tuple[str, ...]:
    """``a,b`` -> ``("a", "b")``; at least one."""
    parts = tuple(part.strip() for part in text.split(",") if part.strip())
    if not parts:
        raise argparse.ArgumentTypeError(f"'{text}' names nothing; write it like a,b")
    return parts


def magnitude(text: str) -> float:
    """A finite number of at least 0."""
    try:
        value = float(text)
    except ValueError:
        raise argparse.ArgumentTypeError(f"'{text}' is not a number") from None
    if not 0 <= value < math.inf:
        raise argparse.ArgumentTypeError(f"{text} is not a number of at least 0")
    return value


def numbers(text: str) -> tuple[int, ...]:
    """``1,4`` -> ``(1, 4)``; each must be at least 1."""
    try:
        values = tuple(int(part) for part in text.split(","))
    except ValueError:
        raise argparse.ArgumentTypeError(f"'{text}' is not a list of numbers such as 1,4") from None
    if min(values) < 1:
        raise argparse.ArgumentTypeError(f"{min(values)} is less than 1")
    return values


def positive(text: str) -> int:
    """A whole number of at least 1."""
    return _at_least(text, 1)


def count(text: str) -> int:
    """A whole number of at least 0."""
    return _at_least(text, 0)


def _at_least(text: str, least: int) -> int:
    try:
        value = int(text)
    except ValueError:
        raise argparse.ArgumentTypeError(f"'{text}' is not a whole number") from None
    if value < least:
        raise argparse.ArgumentTypeError(f"{value} is less than {least}")
    return value
