"""Search for the kernel templates' decisions by measuring (docs/tuning.md)."""
