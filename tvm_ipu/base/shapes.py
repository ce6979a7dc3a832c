"""Input shapes as users write them, in the spellings of tvmc, PopRT and the SigmaStar converter."""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping, Sequence

from tvm_ipu.base.errors import OptionError

Shape = tuple[int, ...]
InputShapes = Mapping[str, Sequence[int]] | Sequence[Sequence[int]]
"""Shapes by input name, or of all inputs in the model's order."""

FORMS = "'name:[1,3,224,224]', 'name=1,3,224,224' or, for all inputs in order, '1,3,224,224:1,10'"

LARGEST = 2**31 - 1
"""Largest dimension of a tensor."""

_BRACKETED = re.compile(r"\s*([^\[\]]*?)\s*:\s*\[([^\[\]]*)\]\s*(?:,|(?=\s)|$)")


def parse_input_shapes(texts: Iterable[str], option: str = "--input-shapes") -> InputShapes:
    """Read the values of one option, which may have been given several times or with several words.

    Args:
        texts: Values in one of three forms, all in the same one:
            ``data:[1,3,224,224] mask:[1,10]`` (several separated by spaces or commas),
            ``data=1,3,224,224`` (one a word; the name may hold ``:``), or
            ``1,3,224,224:1,10`` (no names: the inputs in their order).
        option: Name of the option, for messages.

    Returns:
        Shapes by name, in the order given, or a list of shapes for the positional form; ``{}`` for no text.

    Raises:
        OptionError: A text has none of the forms, a dimension is no positive integer, or a name comes twice.
    """
    words = [t for t in texts if t.strip()]
    if not words:
        return {}
    if any("[" in word for word in words):
        pairs = [pair for word in words for pair in _parse_bracketed(word, option)]
    elif any("=" in word for word in words):
        pairs = [_parse_equation(word, option) for text in words for word in text.split()]
    else:
        fields = [field for word in words for field in ":".join(word.split()).split(":")]
        return [_parse_dims(field, field, option) for field in fields]
    named = dict(pairs)
    if len(named) != len(pairs):
        names = [name for name, _ in pairs]
        twice = next(name for name in names if names.count(name) > 1)
        raise OptionError(f"{option}: input '{twice}' is given twice")
    return named


def format_input_shapes(shapes: Mapping[str, Sequence[int]]) -> str:
    """The named shapes in tvmc's form, as ``parse_input_shapes`` reads them."""
    return " ".join(f"{name}:[{','.join(map(str, dims))}]" for name, dims in shapes.items())


def _parse_bracketed(text: str, option: str) -> list[tuple[str, Shape]]:
    pairs: list[tuple[str, Shape]] = []
    position = 0
    while text[position:].strip():
        match = _BRACKETED.match(text, position)
        if not match or not match.group(1):
            raise _malformed(text, option)
        name, dims = match.groups()
        pairs.append((name, _parse_dims(dims, text, option) if dims.strip() else ()))
        position = match.end()
    return pairs


def _parse_equation(word: str, option: str) -> tuple[str, Shape]:
    name, equals, dims = word.rpartition("=")
    if not equals or not name:
        raise _malformed(word, option)
    return name, _parse_dims(dims, word, option) if dims else ()


def _parse_dims(dims: str, text: str, option: str) -> Shape:
    fields = [d.strip() for d in dims.split(",")]
    if not all(re.fullmatch(r"[0-9]+", d) and int(d) > 0 for d in fields):
        if all(re.fullmatch(r"-?[0-9]+", d) for d in fields):
            raise OptionError(
                f"{option}: '{text.strip()}' has a dimension below 1",
                "an image has static shapes: give every dimension as a positive number",
            )
        raise _malformed(text, option)
    if max(map(int, fields)) > LARGEST:
        raise OptionError(f"{option}: '{text.strip()}' has a dimension above {LARGEST}", "no chip holds that")
    return tuple(int(d) for d in fields)


def _malformed(text: str, option: str) -> OptionError:
    return OptionError(f"{option}: cannot read '{text.strip()}'", f"write {FORMS}")
