"""The chaos rig: `python -m tests.chaos.rig --help`.

schedule ─▶ run ─▶ faults ─▶ servers, links, workers ◀─ publisher (traffic)
                                                     ─▶ observer ─▶ verdict
"""
