"""How to compile: everything that a user can choose and that does not describe the chip."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from tvm_ipu.base.errors import OptionError

PRECISIONS = ("fp32", "fp16", "bf16")


@dataclass(frozen=True)
class CompileOptions:
    """Choices of one compilation.

    Attributes:
        precision: Type of weights and activations inside: ``fp32``, ``fp16`` or ``bf16``.
            Inputs and outputs keep the model's own types.
        max_error: Bound on the error that 16-bit precision may cost an output, as a share of the output's
            largest absolute value. It is estimated on random inputs, and the most sensitive layers stay in
            float32; 0 keeps none of them back and estimates nothing.
        float32_layers: Products that stay in float32, by their layers' names.
        winograd: Whether convolutions may be computed by Winograd's minimal filtering: faster, with rounding
            errors about twice those of summing the products.
        passes: Passes of the user's own, ``module:function``, run first on the Relax module.
        dump_dir: Folder that receives the IR after each stage and the linked object, or None.
        verify: Check the IR's well-formedness after every pass.
        jobs: Processes or threads that generate code.
        tuning_records: Files of records that ``tune`` wrote; of records for the same problem the last counts.
        shipped_records: Whether records that come with this version are used as well, below those files.
    """

    precision: str = "fp32"
    max_error: float = 0.02
    float32_layers: tuple[str, ...] = ()
    winograd: bool = True
    passes: tuple[str, ...] = ()
    dump_dir: Path | None = None
    verify: bool = False
    jobs: int = 2
    tuning_records: tuple[Path, ...] = ()
    shipped_records: bool = True

    def __post_init__(self) -> None:
        if self.precision not in PRECISIONS:
            raise OptionError(
                f"--precision: '{self.precision}' is not known",
                f"allowed are {', '.join(PRECISIONS)}",
            )
