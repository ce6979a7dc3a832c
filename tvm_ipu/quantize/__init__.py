"""Quantisation to fixed point: where, how fine, and by which ranges."""
