"""Writes what can be generated of the docs."""
