"""Code generation: fused functions become kernels, objects, one linked blob and a memory plan."""
