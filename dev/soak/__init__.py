"""A day's worth of commands at one worker: does anything grow (`make soak`)?

traffic.py    the commands: lives of users, duplicates, and messages that are no commands
run.py        worker, publisher and observer; looks at all sizes all the while
verdict.py    is a series flat?
plot.py       the series as a picture
"""
