"""Lines ``key = value;`` in sections, as ``input_config.ini`` is written, each with its place in the file."""

from __future__ import annotations

import difflib
import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import NoReturn

from tvm_ipu.base.errors import ConfigError

_COMMENT = re.compile(r"(^|(?<=[\s;]))#.*")


@dataclass(frozen=True)
class Entry:
    """One value.

    Attributes:
        text: The value, without comment, closing semicolon and surrounding spaces.
        line: Its line in the file, from 1.
    """

    text: str
    line: int

    def items(self) -> list[str]:
        """The parts between commas."""
        return [part.strip() for part in self.text.split(",")]


@dataclass(frozen=True)
class IniFile:
    """A file as read.

    Attributes:
        path: Of the file.
        sections: Entries by section and key; a section that is there may be empty.
        lines: Line of each section's heading.
    """

    path: Path
    sections: Mapping[str, Mapping[str, Entry]]
    lines: Mapping[str, int]

    def find(self, section: str, key: str) -> Entry | None:
        """The value of a key; None where it is not given."""
        return self.sections.get(section, {}).get(key)

    def fail(self, section: str, key: str, what: str, hint: str = "") -> NoReturn:
        """Refuse the value of ``key``, or its absence.

        Raises:
            ConfigError: Always; it names file, line, section and key.
        """
        entry = self.find(section, key)
        line = entry.line if entry else self.lines.get(section, 0)
        where = f"{self.path}:{line}" if line else str(self.path)
        raise ConfigError(f"{where}: [{section}] {key}: {what}", hint)


def read_ini(path: Path, known: Mapping[str, Iterable[str]]) -> IniFile:
    """Read ``path``.

    ``#`` starts a comment at the beginning of a line, after a space or after a semicolon; a value may end
    with a semicolon. Sections and keys may be in capitals or small letters.

    Args:
        path: The file, in UTF-8.
        known: Keys of each section.

    Raises:
        ConfigError: The file cannot be read, a line is none of the above, or a section or key is not known or
            appears twice.
    """
    try:
        text = path.read_text(encoding="utf-8-sig")
    except OSError as err:
        raise ConfigError(f"cannot read '{path}': {err.strerror or err}") from err
    except UnicodeDecodeError as err:
        raise ConfigError(
            f"'{path}' is not UTF-8 text ({err.reason} at byte {err.start})",
            "save it as UTF-8, comments included",
        ) from err
    sections: dict[str, dict[str, Entry]] = {}
    lines: dict[str, int] = {}
    section = ""
    for number, raw in enumerate(text.splitlines(), 1):
        line = _COMMENT.sub("", raw).strip()
        where = f"{path}:{number}"
        if not line or line.startswith(";"):
            continue
        if line.startswith("["):
            section = _known(line.rstrip(";").strip()[1:-1].strip().upper(), known, where, "section")
            if section in sections:
                raise ConfigError(f"{where}: [{section}] is there twice, first on line {lines[section]}")
            sections[section], lines[section] = {}, number
            continue
        key, equals, value = (part.strip() for part in line.partition("="))
        if not equals:
            raise ConfigError(f"{where}: '{line}' is neither '[SECTION]' nor 'key = value;'")
        if not section:
            raise ConfigError(
                f"{where}: '{key}' stands before any section", f"begin with [{next(iter(known))}]"
            )
        key = _known(key.lower(), known[section], f"{where}: [{section}]", "key")
        found = sections[section]
        if key in found:
            raise ConfigError(f"{where}: [{section}] {key}: is there twice, first on line {found[key].line}")
        found[key] = Entry(value.rstrip(";").strip(), number)
    return IniFile(path, sections, lines)


def _known(name: str, known: Iterable[str], where: str, what: str) -> str:
    names = list(known)
    if name in names:
        return name
    raise ConfigError(
        f"{where}: there is no {what} '{name}'", f"{suggest(name, names)}allowed are {', '.join(names)}"
    )


def suggest(name: str, names: Iterable[str]) -> str:
    """``did you mean 'x'? `` where one of ``names`` is similar, else nothing."""
    close = difflib.get_close_matches(name, list(names), 1)
    return f"did you mean '{close[0]}'? " if close else ""
