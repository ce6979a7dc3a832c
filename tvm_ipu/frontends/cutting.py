"""Where to cut a network whose end cannot be converted."""

from __future__ import annotations

from collections.abc import Iterable, Sequence


def cut_hint(steps: Iterable[tuple[Sequence[str], Sequence[str], bool]], inputs: Iterable[str]) -> str:
    """What to tell the user, naming the tensors before everything that cannot be converted.

    Args:
        steps: In order: tensors that an operator reads, that it makes, and whether it can be converted.
        inputs: Of the network.

    Returns:
        A hint, empty where nothing can be computed without the operators that cannot be converted.
    """
    known, before, lost = set(inputs), dict[str, None](), set[str]()
    made: set[str] = set()
    for reads, makes, convertible in steps:
        if convertible and not lost.intersection(reads):
            made.update(makes)
        else:
            lost.update(makes)
            before |= dict.fromkeys(name for name in reads if name in made and name not in known)
    return f"cut the network before them: --output-arrays {','.join(before)}" if before else ""
