"""Texts of ``input_config.ini`` that several tests use."""

from __future__ import annotations


def one_picture(
    name: str = "x",
    outputs: str = "y",
    *,
    fed: str = "RGB",
    mean: str = "0:0:0",
    std: str = "255",
    dequantizations: str = "",
) -> str:
    """A network trained on RGB pictures.

    Args:
        name: Its input.
        outputs: Its outputs, with commas between them.
        fed: Format of what the board feeds.
        mean: Mean, in the order R, G, B.
        std: What pixels less the mean are divided by.
        dequantizations: Of the outputs; TRUE for each by default.
    """
    every = dequantizations or ",".join("TRUE" for _ in outputs.split(","))
    return f"""[INPUT_CONFIG]
inputs={name};
training_input_formats=RGB;
input_formats={fed};
quantizations=TRUE;
mean={mean};
std_value={std};
[OUTPUT_CONFIG]
outputs={outputs};
dequantizations={every};
"""


NETWORK = one_picture("x", "y,z", fed="BGR", mean="127.5:127.5:127.5", std="127.5")
"""Of ``frontend_kit.network``."""
FULL = """\
[INPUT_CONFIG]
inputs= data; # names
training_input_formats=RGB;   # what it was trained on
input_formats=BGR;
quantizations=TRUE;
mean=127.5:127.5:127.5;
std_value = 255;
[OUTPUT_CONFIG]
outputs= prob;
dequantizations=TRUE;
[CONV_CONFIG] # optional
tensor_arrays=conv1-1,conv2-1;
"""
"""The example of the toolchain that the format comes from."""
MIXED = """\
[INPUT_CONFIG]
inputs=input0,input2,input1;  # raw data last
training_input_formats=RGB,GRAY,RAWDATA_F32_NHWC;
input_formats=YUV_NV12,GRAY,RAWDATA_F32_NHWC;
mean=1:2:3,33.318;
std_value=58.5:57:56,0;
input_width_alignment=16,4;
input_layouts=NHWC,NCHW,NHWC
[OUTPUT_CONFIG]
outputs=a,b,c;
dequantizations=TRUE,FALSE,TRUE;
output_formats=RAWDATA_F32_NHWC,RAWDATA_U8_NHWC,RAWDATA_S16_NHWC;
output_layouts=NCHW,NHWC,NHWC;
"""
"""Several inputs and outputs, and the keys that are optional."""
FIRST_SEGMENT = """[INPUT_CONFIG]
inputs=data;
input_formats=BGR;
quantizations=TRUE;
mean=122.7717:115.9465:102.9801;
std_value=1;
[OUTPUT_CONFIG]
outputs=rpn_cls_prob_reshape,rpn_bbox_pred,conv5_3;
dequantizations=TRUE,TRUE,FALSE;
"""
SECOND_SEGMENT = """[INPUT_CONFIG]
inputs=conv5_3,rois
input_formats=RAWDATA_F32_NHWC,RAWDATA_F32_NHWC;
quantizations=TRUE,TRUE;
[OUTPUT_CONFIG]
outputs=cls_prob,bbox_pred;
dequantizations=TRUE,TRUE;
"""
"""That toolchain's detector in two segments."""
