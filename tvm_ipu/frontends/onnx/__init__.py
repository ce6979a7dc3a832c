"""ONNX models: reading and checking, simplification, and conversion to Relax."""
