"""Passes over Relax, one a file; ``pipeline`` puts them in order."""
