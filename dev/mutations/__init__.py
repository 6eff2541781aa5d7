"""Breaks the code on purpose, and shows that the tests notice: `make mutations`.

Each mutation is a textual replacement in a copy of the code. One that no longer applies is an
error, so that the list cannot rot silently.
"""
