"""TensorFlow Lite's operators as ONNX nodes, by family."""
