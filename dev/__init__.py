"""Programs for those who work on the worker; none of them is a test, and none is installed."""
