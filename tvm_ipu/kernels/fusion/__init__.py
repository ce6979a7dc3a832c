"""Fused functions without a template, as loops: read, simplified, grouped, laid out and emitted."""
