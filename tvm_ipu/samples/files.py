"""Which files make a sample: the value of ``-i``."""

from __future__ import annotations

from contextlib import suppress
from pathlib import Path

from tvm_ipu.base.errors import OptionError

Sample = tuple[Path, ...]
"""A file for each input."""

LIST_SUFFIXES = (".txt", ".list", ".lst")


def find_samples(source: Path, inputs: int = 1) -> list[Sample]:
    """The samples that a file, a folder or a list of files stands for.

    A list has a line a sample, and commas between the files of its inputs. Relative paths are looked up
    beside the list, then in the current folder.

    Args:
        source: The value of ``-i``. A text file is a list where it names files.
        inputs: Inputs of the model; a file or a folder is for models with one.

    Raises:
        OptionError: There is nothing there, or not for each input, or a file that a list names is missing.
    """
    if source.is_dir():
        _check_single(source, "a folder", inputs)
        files = sorted(p for p in source.iterdir() if p.is_file() and not p.name.startswith("."))
        if not files:
            raise OptionError(f"-i: {source} is a folder without files")
        return [(file,) for file in files]
    if not source.exists():
        raise OptionError(f"-i: {source} does not exist", "give a file, a folder, or a list of files")
    if source.suffix.lower() in LIST_SUFFIXES:
        return _read_list(source, inputs)
    _check_single(source, "one file", inputs)
    return [(source,)]


def _check_single(source: Path, kind: str, inputs: int) -> None:
    if inputs != 1:
        raise OptionError(
            f"-i: {source} is {kind}, and the model has {inputs} inputs",
            f"give a list ({', '.join(LIST_SUFFIXES)}): a line a sample, commas between the inputs' files",
        )


def _read_list(source: Path, inputs: int) -> list[Sample]:
    try:
        lines = source.read_text(encoding="utf-8-sig").splitlines()
    except UnicodeDecodeError as err:
        raise OptionError(f"-i: {source} is no text ({err})") from err
    samples = []
    for number, line in enumerate(lines, 1):
        if not line.strip():
            continue
        names = [name.strip() for name in line.split(",")]
        if len(names) != inputs:
            raise OptionError(
                f"-i: {source}, line {number}: {len(names)} files, and the model has {inputs} inputs",
                "give a file for each input, with commas between them",
            )
        samples.append(tuple(_find(name, source, number) for name in names))
    if not samples:
        raise OptionError(f"-i: {source} names no files")
    return samples


def _find(name: str, source: Path, number: int) -> Path:
    for path in (source.parent / name, Path(name)):
        with suppress(OSError):  # a name that is too long
            if name and path.is_file():
                return path
    folders = dict.fromkeys((source.parent.absolute(), Path.cwd()))
    raise OptionError(
        f"-i: {source}, line {number}: there is no file '{name}'",
        f"paths are looked up in {', then in '.join(map(str, folders))}",
    )
