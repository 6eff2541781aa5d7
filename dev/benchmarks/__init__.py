"""Benchmarks: the worker beside its peers, measured in one run on one machine (`make bench`).

The parts, from below:

    amqp.py        a connection that costs next to nothing, to publish and to observe with
    commands.py    workloads: what is sent, what must come back, which rows must be there then
    arena.py       a fresh database and fresh queues for one run
    observer.py    receives the events of one arena, with the time of each
    tally.py       is every event there, exactly once?
    process.py     a contender as a process; its end, its log
    usage.py       CPU time of contender, broker and database, from /proc
    contender.py   what a contender is
    catalogue.py   lists them all; `contenders/` holds their programs
    drain.py       one run: fill the queue, start the contender, count events until all are there
    pgbench.py     the same for the database alone
    figures.py     rates, medians, ratios pair by pair
    rounds.py      all contenders in turn, several rounds, in a shuffled order
    results.py     `benchmarks.json`; `targets.py` holds what is to be reached, `machine.py` where
    tables.py      what is printed; `chart.py` draws it
    latency/       an open load, and the time to each answer (`make bench-latency`)
    growth/        full tables, a long queue, many lanes (`make bench-growth`)

Another benchmark plugs in at the height that it needs. To measure a contender in a way of its own:

    async with servers() as place, fresh_arena(place) as arena, observe(arena) as observer:
        contender = CONTENDERS["worker"]
        async with running(contender, arena), open_link(arena.broker_url) as link:
            bodies = CREATE.bodies(1_000, seed=1)
            await link.publish("", contender.queue_of(arena), bodies)   # or `send` each at its time
            await observer.reached(1_000)
            observer.times, observer.bodies                            # `loop.time()`, event bytes

and to run whole drains with other numbers: `await drain(contender, place, commands=5_000, seed=1)`.
"""
