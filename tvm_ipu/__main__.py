"""``python -m tvm_ipu``: the same as the command ``tvm-ipu``."""

from tvm_ipu.cli.main import main

raise SystemExit(main())
