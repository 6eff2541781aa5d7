"""`make chaos`: break everything on purpose for a while, and tell what became of the commands."""

from __future__ import annotations

import argparse
import asyncio
import signal
import sys
import time
from collections.abc import Sequence
from pathlib import Path

from dev.chaos.disk import go_apart
from dev.chaos.faults import FAULTS, Fault
from dev.chaos.place import Place
from dev.chaos.result import (
    BACK_WITHIN_SECONDS,
    in_words,
    is_good,
    order_is_promised,
    result,
    write,
)
from dev.chaos.run import Run, say, write_plan
from dev.chaos.schedule import Planned, Recipe, schedule
from worker.testing.journal import Journal
from worker.testing.verdict import judge

_EPILOG = """\
The seed decides on the faults, their order, and the commands: the same seed does the same again.
All records are kept in the folder: schedule, timeline, commands, events, logs, verdict.

examples:
  make chaos minutes=5 seed=7
  python -m dev.chaos --minutes 1 --seed 3 --only kill-committed --only broker-kill
  python -m dev.chaos --minutes 30 --seed 1 --plan
"""


def main() -> int:
    """The exit code.

    0 if nothing was lost, doubled, untrue, out of order, stuck or too slow, and every planned fault
    came about while commands flowed.
    """
    parsed = _parser().parse_args()
    unknown = set(parsed.only or ()) - FAULTS.keys()
    if unknown:
        say(f"error: there is no fault {', '.join(unknown)}; there are: {', '.join(FAULTS)}")
        return 2
    plan = schedule(parsed.seed, parsed.minutes, _recipes(parsed), count=parsed.faults)
    if not parsed.plan:
        go_apart()
    for planned in plan:
        say(str(planned))
    if parsed.plan:
        return 0
    folder = (
        parsed.folder or Path(".services") / "chaos" / f"{time.strftime('%H%M%S')}-{parsed.seed}"
    )
    folder.mkdir(parents=True)
    # A shell's background job would ignore it; and both are to leave nothing behind.
    signal.signal(signal.SIGINT, signal.default_int_handler)
    signal.signal(signal.SIGTERM, lambda *_: signal.raise_signal(signal.SIGINT))
    return asyncio.run(_run(folder.resolve(), parsed, plan))


def _recipes(parsed: argparse.Namespace) -> dict[str, Recipe]:
    return {
        name: fault.recipe
        for name, fault in FAULTS.items()
        if (not parsed.only or name in parsed.only)
        and not (_is_ordered(parsed) and _spoils_order(fault, parsed.partitions))
        and not (fault.needs_nodes and parsed.nodes == 1)
    }


def _spoils_order(fault: type[Fault], partitions: int) -> bool:
    return fault.hides_order or (fault.needs_partitions and partitions == 1)


def _is_ordered(parsed: argparse.Namespace) -> bool:
    return order_is_promised(_sizes(parsed), parsed.partitions)


def _sizes(parsed: argparse.Namespace) -> list[int]:
    return [int(size) for size in parsed.workers.split(",")]


async def _run(folder: Path, parsed: argparse.Namespace, plan: Sequence[Planned]) -> int:
    write_plan(folder, plan)
    sizes = _sizes(parsed)
    say(f"records: {folder}")
    async with Place(
        folder,
        seed=parsed.seed,
        rate=parsed.rate,
        workers=sizes,
        partitions=parsed.partitions,
        nodes=parsed.nodes,
    ) as place:
        run = Run(place, plan, parsed.minutes)
        began = time.monotonic()
        await run.go()
        minutes = (time.monotonic() - began) / 60
        await place.stop()
    book = Journal.read(folder / "book")
    found = result(
        circumstances={
            "seed": parsed.seed,
            "minutes": round(minutes, 1),
            "rate": parsed.rate,
            "workers": sizes,
            "partitions": parsed.partitions,
            "nodes": parsed.nodes,
            "disk_full": "a full tmpfs" if place.disk else "a trigger that raises 53100",
        },
        happened=run.happened,
        endings=[ending for worker in place.workers for ending in worker.endings],
        verdict=judge(book, ordered=_is_ordered(parsed)),
        book=book,
        anonymous=Journal.read(folder / "book" / "anonymous"),
        late_after=parsed.late_after,
    )
    write(folder, found)
    print(in_words(found))
    return 0 if is_good(found) else 1


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="python -m dev.chaos",
        description=__doc__,
        epilog=_EPILOG,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("--minutes", type=float, default=5, help="at least so long (5)")
    parser.add_argument("--seed", type=int, default=1, help="of the schedule and the traffic (1)")
    parser.add_argument("--rate", type=float, default=140, help="messages a second (140)")
    parser.add_argument("--faults", type=int, help="how many, in place of seven a minute")
    parser.add_argument("--only", action="append", metavar="FAULT", help="these kinds alone")
    parser.add_argument(
        "--workers", default="1,1,2", metavar="N,…", help="processes of each worker (1,1,2)"
    )
    parser.add_argument("--partitions", type=int, default=1, help="WORKER_PARTITIONS (1)")
    parser.add_argument("--nodes", type=int, default=1, help="of RabbitMQ (1)")
    parser.add_argument(
        "--late-after",
        type=float,
        metavar="SECONDS",
        default=BACK_WITHIN_SECONDS,
        help=f"a recovery that takes longer is a fault ({BACK_WITHIN_SECONDS}); more where others "
        "use the machine, too",
    )
    parser.add_argument("--folder", type=Path, help="for the records; must not exist")
    parser.add_argument("--plan", action="store_true", help="print the schedule, and do nothing")
    return parser


if __name__ == "__main__":
    sys.exit(main())
