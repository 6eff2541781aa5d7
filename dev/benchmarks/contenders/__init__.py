"""The contenders' programs: each as its library's own documentation advises, each in one file.

All are told by the environment where to work: `BENCH_BROKER_URL`, `BENCH_DATABASE_URL`,
`BENCH_QUEUE` (take commands from here), `BENCH_EVENTS` (the exchange that events go to).
"""
