"""Tests of the programs in `dev/`."""
