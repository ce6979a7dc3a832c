"""TensorFlow and Keras models -> frozen GraphDef -> ONNX, by tf2onnx."""
