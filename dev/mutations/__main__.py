"""`python -m dev.mutations`: every mutation must be noticed.

Needs the servers of `make test`. Exit codes: 0 all noticed · 1 one was not, or no longer applies.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor

from dev.mutations.catalogue import MUTATIONS
from dev.mutations.copies import copied
from dev.mutations.mutation import Mutation, NoLongerApplies
from dev.mutations.witnesses import run

AT_A_TIME = 2


def main(arguments: Sequence[str] | None = None) -> int:
    """The exit code."""
    chosen = _chosen(_parser().parse_args(arguments).names)
    jobs = [lambda: _as_it_is(chosen), *(lambda m=each: _broken(m) for each in chosen)]
    print(f"{'mutation':34} {'noticed by':78} {'s':>5}")
    with ThreadPoolExecutor(AT_A_TIME) as threads:
        complaints = [list(found) for found in threads.map(lambda job: list(job()), jobs)]
    for complaint in [each for found in complaints for each in found]:
        print(f"\nerror: {complaint}", file=sys.stderr)
    noticed = sum(not found for found in complaints[1:])
    print(f"{noticed} of {len(chosen)} mutations were noticed")
    return int(any(complaints))


def _as_it_is(chosen: Sequence[Mutation]) -> Iterator[str]:
    """Complaints where a witness is red with nothing broken."""
    witnesses = sorted({witness for each in chosen for witness in each.witnesses})
    with copied() as root:
        verdict = run(root, witnesses)
    _line("(the code as it is)", f"none of {len(witnesses)}", verdict.seconds)
    red = sorted(verdict.failed | verdict.broken)
    if red:
        yield f"red with nothing broken: {', '.join(red)}\n{verdict.last_words}"


def _broken(mutation: Mutation) -> Iterator[str]:
    """Complaints where a witness does not notice the mutation."""
    try:
        with copied(mutation) as root:
            verdict = run(root, mutation.witnesses)
    except NoLongerApplies as error:
        yield f"{mutation.name} no longer applies; write it anew in catalogue.py. {error}"
        return
    noticed = [witness for witness in mutation.witnesses if witness in verdict.failed]
    _line(mutation.name, (noticed or ["NOBODY"])[0], verdict.seconds)
    for witness in noticed[1:]:
        print(f"{'':34} {witness}")
    if verdict.broken:
        names = ", ".join(sorted(verdict.broken))
        yield f"{mutation.name}: could not be run: {names}\n{verdict.last_words}"
    if verdict.passed:
        yield f"{mutation.name} was not noticed by: {', '.join(sorted(verdict.passed))}"


def _line(name: str, found: str, seconds: float) -> None:
    print(f"{name:34} {found:78} {seconds:5.1f}", flush=True)


def _chosen(names: Sequence[str]) -> list[Mutation]:
    return [each for each in MUTATIONS if not names or each.name in names]


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="python -m dev.mutations",
        description="Break the code in known ways; every way must be noticed by its witnesses.",
    )
    known = [each.name for each in MUTATIONS]
    parser.add_argument("names", nargs="*", metavar="NAME", help=f"one of: {', '.join(known)}")
    return parser


if __name__ == "__main__":
    sys.exit(main())
