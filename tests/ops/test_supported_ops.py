"""docs/SUPPORTED_OPS.md; the results in it are checked by scripts/onnx-node-suite --check."""

from scripts import supported_ops


def test_table_of_operators_is_fresh():
    assert supported_ops.operators_section() in supported_ops.PAGE.read_text(encoding="utf-8")


def test_every_converter_says_what_it_supports():
    for (domain, op), constraint in supported_ops.constraints().items():
        assert constraint.endswith("."), (domain, op)
        assert len(constraint) < 200, (domain, op)
