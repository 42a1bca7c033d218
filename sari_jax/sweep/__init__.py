"""Sweeps: many runs from one file, how they are started, and their results."""
