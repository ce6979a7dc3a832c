"""Kernels: templates, the generic rule, and the choice between them."""
