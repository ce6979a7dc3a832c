"""Run convolutions and what lies between them in NHWC.

    lv = R.nn.conv2d(x, w)      ->      lv0 = R.permute_dims(x, axes=[0, 2, 3, 1])
                                        lv1 = R.nn.conv2d(lv0, w', data_layout="NHWC", kernel_layout="OHWI")
                                        lv = R.permute_dims(lv1, axes=[0, 3, 1, 2])

The transposes cancel between layers (``simplify_transposes``); those of weights are folded
(``fold_constants``).
"""

from __future__ import annotations

import tvm
from tvm import relax


def to_nhwc(module: tvm.ir.IRModule) -> tvm.ir.IRModule:
    """Convert convolutions to NHWC data and OHWI weights; operators without a layout follow."""
    desired = {"relax.nn.conv2d": ["NHWC", "OHWI"]}
    module = relax.transform.ConvertLayout(desired)(module)
    return relax.transform.Normalize()(module)
