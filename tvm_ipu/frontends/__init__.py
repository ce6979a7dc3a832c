"""Model file or object -> Relax. The only stage that imports onnx and other frameworks."""
