"""Quantisation to fixed point. Nothing is here yet."""
