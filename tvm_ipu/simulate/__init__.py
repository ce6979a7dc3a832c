"""Simulators of fixed-point models: the same numbers as the images, by other means."""
