"""What becomes of the worker when things grow (`make bench-growth`).

filling.py   tables with millions of rows
station.py   one drain of a worker, its memory watched all the while
parts.py     rows, backlog and lanes: what is compared with what
report.py    the figures, the targets and the tables
plot.py      the same as a picture
"""
