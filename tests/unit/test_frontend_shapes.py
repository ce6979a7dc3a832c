"""Input shapes on the command line: three spellings, one meaning."""

import pytest
from hypothesis import given, strategies as st

from tvm_ipu.base.errors import OptionError
from tvm_ipu.base.shapes import format_input_shapes, parse_input_shapes

SHAPES = st.lists(st.integers(1, 10**6), min_size=1, max_size=6).map(tuple)
PLAIN = st.text("abcXYZ019_./-", min_size=1, max_size=12)
WITH_COLON = st.text("abcXYZ019_./-:", min_size=1, max_size=12)


def dims(shape):
    return ",".join(map(str, shape))


@given(
    st.dictionaries(WITH_COLON.filter(lambda n: n.strip(":") == n), SHAPES, min_size=1),
    st.sampled_from([" ", ",", ", "]),
)
def test_tvmc_form(shapes, separator):
    text = separator.join(f"{name}:[{dims(shape)}]" for name, shape in shapes.items())
    assert parse_input_shapes([text]) == shapes
    assert parse_input_shapes(format_input_shapes(shapes).split()) == shapes


@given(st.dictionaries(WITH_COLON, SHAPES, min_size=1))
def test_poprt_form(shapes):
    words = [f"{name}={dims(shape)}" for name, shape in shapes.items()]
    assert parse_input_shapes(words) == shapes
    assert parse_input_shapes([" ".join(words)]) == shapes


@given(st.lists(SHAPES, min_size=1, max_size=5))
def test_sigmastar_form(shapes):
    assert parse_input_shapes([":".join(map(dims, shapes))]) == shapes


def test_examples():
    assert parse_input_shapes([]) == {}
    assert parse_input_shapes(["data:[1,3,224,224]"]) == {"data": (1, 3, 224, 224)}
    assert parse_input_shapes(["a : [1, 2],b:[3] c:[]"]) == {"a": (1, 2), "b": (3,), "c": ()}
    assert parse_input_shapes(["input_ids:0=16,256", "unique_ids_raw_output___9:0=16"]) == {
        "input_ids:0": (16, 256),
        "unique_ids_raw_output___9:0": (16,),
    }
    assert parse_input_shapes(["1,3,224,224:1,10"]) == [(1, 3, 224, 224), (1, 10)]


@pytest.mark.parametrize(
    "text",
    [
        "data",
        "data:[1,x]",
        "data:[1,2",
        "data:1,2",
        "[1,2]",
        ":[1]",
        "=1,2",
        "a=1,,2",
        "a=-1,3",
        "a:[0]",
        "1,2:",
        "1;2",
        "a:[1]b:[2]",
    ],
)
def test_malformed(text):
    with pytest.raises(OptionError, match="--input-shapes"):
        parse_input_shapes([text])


def test_name_given_twice():
    with pytest.raises(OptionError, match="'a' is given twice"):
        parse_input_shapes(["a=1", "a=2"])
