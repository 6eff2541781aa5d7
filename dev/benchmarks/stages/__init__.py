"""Where the CPU time of a command goes: the steps of the pipeline, each timed on its own.

run.py      the worker's own parts in this process, on a real database, with no broker
report.py   the table
"""
