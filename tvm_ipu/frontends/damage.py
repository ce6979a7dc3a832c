"""Rules of operators take an operator for what its type promises; where it is not, the file is at fault."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

from tvm_ipu.base.errors import ModelError


@contextmanager
def refuse_damage(label: object) -> Iterator[None]:
    """Turn what Python and numpy raise on wrong operands and attributes into an error that names the place.

    Args:
        label: What is being read, such as an operator; only looked at after a failure.

    Raises:
        ModelError: In place of an error of theirs, which is its cause.
    """
    try:
        yield
    except (ArithmeticError, AttributeError, LookupError, TypeError, ValueError) as err:
        first = next(iter(str(err).strip().splitlines()), "")
        raise ModelError(
            f"{label} is damaged, or of a form that is not known: {type(err).__name__}: {first}"
        ) from err
