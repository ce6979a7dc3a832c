"""TensorFlow Lite models as ONNX."""
