"""Kernel templates: each emits TIR for one kind of computation, given a problem and how to cut it."""
