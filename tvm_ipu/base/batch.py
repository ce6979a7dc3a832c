"""Batches: how many elements one image serves at once, and how they lie in memory."""

from __future__ import annotations

from dataclasses import dataclass

from tvm_ipu.base.errors import OptionError

ONE_BUF, N_BUF = "one_buf", "n_buf"
BATCH_MODES = (N_BUF, ONE_BUF)
MAX_SIZES = 10
"""Most batch sizes of one image in the mode ``one_buf``."""


@dataclass(frozen=True)
class Batches:
    """What an image is compiled for.

    Attributes:
        sizes: First dimensions of the plans; the model's own where empty.
        limit: Most elements that a caller may give at once, a buffer each; 0 where they lie in one buffer.
    """

    sizes: tuple[int, ...] = ()
    limit: int = 0


def choose_batches(sizes: tuple[int, ...], mode: str = ONE_BUF) -> Batches:
    """What ``--batch`` and ``--batch_mode`` ask for.

    Args:
        sizes: Value of ``--batch``.
        mode: ``n_buf``: any number of elements up to the one size that is given, each in buffers of its own;
            they run one after another through one plan. ``one_buf``: as many as one of the sizes, stacked in
            the first dimension; each size has a plan of its own.

    Raises:
        OptionError: The sizes do not go with the mode.
    """
    given = ",".join(map(str, sizes))
    if mode not in BATCH_MODES:
        raise OptionError(f"--batch_mode: '{mode}' is not known", f"allowed are {', '.join(BATCH_MODES)}")
    if mode == ONE_BUF:
        if len(sizes) > MAX_SIZES:
            raise OptionError(
                f"--batch: {len(sizes)} sizes are too many", f"at most {MAX_SIZES} are allowed with one_buf"
            )
        if len(set(sizes)) < len(sizes):
            raise OptionError(f"--batch: '{given}' names a size twice", "name each once")
        return Batches(sizes)
    if len(sizes) > 1:
        raise OptionError(
            f"--batch: n_buf takes one number, the largest batch, found '{given}'",
            "give one number, or --batch_mode one_buf for a list",
        )
    return Batches((1,), sizes[0]) if sizes else Batches()
