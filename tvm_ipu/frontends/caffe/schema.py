"""Caffe's messages: the fields of networks, layers and weights that matter when a network runs.

Names, numbers and defaults are those of the published format (``caffe.proto``), with the layers that SSD,
DeepLab, Fast R-CNN and other branches added. Layers of the old form (V1) share their parameters with those
of today.
"""

from __future__ import annotations

from tvm_ipu.frontends.messages import message_classes

V1_TYPES = {
    "NONE": "", "ACCURACY": "Accuracy", "BNLL": "BNLL", "CONCAT": "Concat", "CONVOLUTION": "Convolution",
    "DATA": "Data", "DROPOUT": "Dropout", "EUCLIDEAN_LOSS": "EuclideanLoss", "FLATTEN": "Flatten",
    "HDF5_DATA": "HDF5Data", "HDF5_OUTPUT": "HDF5Output", "IM2COL": "Im2col", "IMAGE_DATA": "ImageData",
    "INFOGAIN_LOSS": "InfogainLoss", "INNER_PRODUCT": "InnerProduct", "LRN": "LRN",
    "MULTINOMIAL_LOGISTIC_LOSS": "MultinomialLogisticLoss", "POOLING": "Pooling", "RELU": "ReLU",
    "SIGMOID": "Sigmoid", "SOFTMAX": "Softmax", "SOFTMAX_LOSS": "SoftmaxWithLoss", "SPLIT": "Split",
    "TANH": "TanH", "WINDOW_DATA": "WindowData", "ELTWISE": "Eltwise", "POWER": "Power",
    "SIGMOID_CROSS_ENTROPY_LOSS": "SigmoidCrossEntropyLoss", "HINGE_LOSS": "HingeLoss",
    "MEMORY_DATA": "MemoryData", "ARGMAX": "ArgMax", "THRESHOLD": "Threshold", "DUMMY_DATA": "DummyData",
    "SLICE": "Slice", "MVN": "MVN", "ABSVAL": "AbsVal", "SILENCE": "Silence",
    "CONTRASTIVE_LOSS": "ContrastiveLoss", "EXP": "Exp", "DECONVOLUTION": "Deconvolution",
}  # fmt: skip
"""Types of layers in the old form, in the order of their numbers, and what they are called today."""

_V1_NAMES = "|".join(V1_TYPES)

_TABLE = f"""
BlobShape: dim*=1:int64
BlobProto: shape=7:BlobShape data*=5:float double_data*=8:double num=1:int32 channels=2:int32 height=3:int32
    width=4:int32 raw_data_type=10:DOUBLE|FLOAT|FLOAT16|INT|UINT raw_data=12:bytes
NetParameter: name=1:string input*=3:string input_shape*=8:BlobShape input_dim*=4:int32
    layer*=100:LayerParameter layers*=2:V1LayerParameter
NetStateRule: phase=1:TRAIN|TEST:TEST min_level=2:int32:0 max_level=3:int32:0 stage*=4:string
    not_stage*=5:string
LayerParameter: name=1:string type=2:string bottom*=3:string top*=4:string blobs*=7:BlobProto
    include*=8:NetStateRule exclude*=9:NetStateRule transform_param=100:TransformationParameter
    argmax_param=103:ArgMaxParameter concat_param=104:ConcatParameter
    convolution_param=106:ConvolutionParameter data_param=107:DataParameter
    dummy_data_param=109:DummyDataParameter eltwise_param=110:EltwiseParameter exp_param=111:ExpParameter
    inner_product_param=117:InnerProductParameter lrn_param=118:LRNParameter
    memory_data_param=119:MemoryDataParameter mvn_param=120:MVNParameter pooling_param=121:PoolingParameter
    power_param=122:PowerParameter relu_param=123:ReLUParameter softmax_param=125:SoftmaxParameter
    slice_param=126:SliceParameter threshold_param=128:ThresholdParameter prelu_param=131:PReLUParameter
    reshape_param=133:ReshapeParameter log_param=134:LogParameter flatten_param=135:FlattenParameter
    reduction_param=136:ReductionParameter tile_param=138:TileParameter
    batch_norm_param=139:BatchNormParameter elu_param=140:ELUParameter bias_param=141:BiasParameter
    scale_param=142:ScaleParameter input_param=143:InputParameter crop_param=144:CropParameter
    permute_param=202:PermuteParameter norm_param=206:NormalizeParameter interp_param=210:InterpParameter
    upsample_param=211:UpsampleParameter shuffle_channel_param=212:ShuffleChannelParameter
    relu6_param=213:ReLUParameter clip_param=148:ClipParameter roi_pooling_param=8266711:ROIPoolingParameter
V1LayerParameter: bottom*=2:string top*=3:string name=4:string type=5:{_V1_NAMES} blobs*=6:BlobProto
    include*=32:NetStateRule exclude*=33:NetStateRule transform_param=36:TransformationParameter
    argmax_param=23:ArgMaxParameter concat_param=9:ConcatParameter convolution_param=10:ConvolutionParameter
    data_param=11:DataParameter dummy_data_param=26:DummyDataParameter eltwise_param=24:EltwiseParameter
    exp_param=41:ExpParameter inner_product_param=17:InnerProductParameter lrn_param=18:LRNParameter
    memory_data_param=22:MemoryDataParameter mvn_param=34:MVNParameter pooling_param=19:PoolingParameter
    power_param=21:PowerParameter relu_param=30:ReLUParameter softmax_param=39:SoftmaxParameter
    slice_param=31:SliceParameter threshold_param=25:ThresholdParameter
TransformationParameter: crop_size=3:uint32:0
ArgMaxParameter: out_max_val=1:bool:false top_k=2:uint32:1 axis=3:int32
BatchNormParameter: use_global_stats=1:bool:true eps=3:float:1e-5
BiasParameter: axis=1:int32:1 num_axes=2:int32:1
ClipParameter: min=1:float max=2:float
ConcatParameter: axis=2:int32:1 concat_dim=1:uint32:1
ConvolutionParameter: num_output=1:uint32 bias_term=2:bool:true pad*=3:uint32 kernel_size*=4:uint32
    stride*=6:uint32 dilation*=18:uint32 pad_h=9:uint32:0 pad_w=10:uint32:0 kernel_h=11:uint32
    kernel_w=12:uint32 stride_h=13:uint32 stride_w=14:uint32 group=5:uint32:1 axis=16:int32:1
CropParameter: axis=1:int32:2 offset*=2:uint32
DataParameter: batch_size=4:uint32
DummyDataParameter: shape*=6:BlobShape num*=2:uint32 channels*=3:uint32 height*=4:uint32 width*=5:uint32
EltwiseParameter: operation=1:PROD|SUM|MAX:SUM coeff*=2:float
ELUParameter: alpha=1:float:1
ExpParameter: base=1:float:-1 scale=2:float:1 shift=3:float:0
FlattenParameter: axis=1:int32:1 end_axis=2:int32:-1
InnerProductParameter: num_output=1:uint32 bias_term=2:bool:true axis=5:int32:1 transpose=6:bool:false
InputParameter: shape*=1:BlobShape
InterpParameter: height=1:int32:0 width=2:int32:0 zoom_factor=3:int32:1 shrink_factor=4:int32:1
    pad_beg=5:int32:0 pad_end=6:int32:0
LogParameter: base=1:float:-1 scale=2:float:1 shift=3:float:0
LRNParameter: local_size=1:uint32:5 alpha=2:float:1 beta=3:float:0.75
    norm_region=4:ACROSS_CHANNELS|WITHIN_CHANNEL k=5:float:1
MemoryDataParameter: batch_size=1:uint32 channels=2:uint32 height=3:uint32 width=4:uint32
MVNParameter: normalize_variance=1:bool:true across_channels=2:bool:false eps=3:float:1e-9
NormalizeParameter: across_spatial=1:bool:true channel_shared=3:bool:true eps=4:float:1e-10
PermuteParameter: order*=1:uint32
PoolingParameter: pool=1:MAX|AVE|STOCHASTIC pad=4:uint32:0 pad_h=9:uint32:0 pad_w=10:uint32:0
    kernel_size=2:uint32 kernel_h=5:uint32 kernel_w=6:uint32 stride=3:uint32:1 stride_h=7:uint32
    stride_w=8:uint32 global_pooling=12:bool:false round_mode=13:CEIL|FLOOR ceil_mode=1013:bool:true
PowerParameter: power=1:float:1 scale=2:float:1 shift=3:float:0
PReLUParameter: channel_shared=2:bool:false
ReductionParameter: operation=1:NONE|SUM|ASUM|SUMSQ|MEAN:SUM axis=2:int32:0 coeff=3:float:1
ReLUParameter: negative_slope=1:float:0
ReshapeParameter: shape=1:BlobShape axis=2:int32:0 num_axes=3:int32:-1
ROIPoolingParameter: pooled_h=1:uint32:0 pooled_w=2:uint32:0 spatial_scale=3:float:1
ScaleParameter: axis=1:int32:1 num_axes=2:int32:1 bias_term=4:bool:false
ShuffleChannelParameter: group=1:uint32:1
SliceParameter: axis=3:int32:1 slice_point*=2:uint32 slice_dim=1:uint32:1
SoftmaxParameter: axis=2:int32:1
ThresholdParameter: threshold=1:float:0
TileParameter: axis=1:int32:1 tiles=2:int32
UpsampleParameter: scale=1:int32:2
"""

_CLASSES = message_classes(_TABLE, "tvm_ipu_caffe")
NetParameter, LayerParameter = _CLASSES["NetParameter"], _CLASSES["LayerParameter"]
