"""Targets, options, tensors, errors and tools: what every stage shares. Imports no stage."""
