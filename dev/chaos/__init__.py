"""The chaos rig: `python -m dev.chaos --help`.

schedule ─▶ run ─▶ faults ─▶ servers, links, workers ◀─ publisher (traffic)
                                                     ─▶ observer ─▶ verdict
"""
