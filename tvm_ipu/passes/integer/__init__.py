"""Integer forms of operators on quantised tensors; ``passes.to_integer`` puts them together."""
