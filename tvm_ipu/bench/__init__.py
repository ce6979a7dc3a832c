"""Measures images: repeated runs, and other runtimes beside them in the same run."""
