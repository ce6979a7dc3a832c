"""Simulators of fixed-point models. Nothing is here yet."""
