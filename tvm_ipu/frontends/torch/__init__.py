"""PyTorch modules, TorchScript and exported programs as ONNX models."""
