"""Programs for those who work on the worker: no part of it, and no tests."""
