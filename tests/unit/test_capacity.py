"""The sum that decides whether the pools fit the server, and what it says where they do not."""

from __future__ import annotations

import pytest

from worker.database.capacity import Room


def room(**changes: int) -> Room:
    values = {
        "most": 100,
        "reserved": 3,
        "others": 17,
        "processes": 1,
        "pool_size": 10,
        "max_overflow": 20,
    }
    return Room(**values | changes)


@pytest.mark.parametrize(
    ("processes", "others", "fits"),
    [(1, 0, True), (2, 0, True), (2, 37, True), (2, 38, False), (4, 0, False)],
)
def test_all_pools_together_must_fit(processes: int, others: int, *, fits: bool) -> None:
    assert room(processes=processes, others=others).fits is fits


def test_the_sentence_has_the_numbers_and_what_to_set() -> None:
    assert room(processes=4).sentence == (
        "4 × (pool_size 10 + max_overflow 20) = 120 connections may be opened; PostgreSQL has 80 "
        "left: max_connections 100 - 3 reserved - 17 used by others. Set "
        "WORKER_DATABASE__POOL_SIZE=10 and WORKER_DATABASE__MAX_OVERFLOW=10, or raise "
        "max_connections to 140"
    )


@pytest.mark.parametrize("processes", [1, 3, 7, 20])
@pytest.mark.parametrize("others", [0, 50, 80])
@pytest.mark.parametrize("size", [1, 4, 30, 90])
def test_what_it_says_to_set_would_fit(processes: int, others: int, size: int) -> None:
    found = room(processes=processes, others=others, pool_size=size, max_overflow=40)
    if found.fits:
        return
    words = found.sentence.split()
    values = {
        name: int(word.split("=")[1].rstrip(","))
        for word in words
        for name in ("POOL_SIZE", "MAX_OVERFLOW")
        if word.startswith(f"WORKER_DATABASE__{name}=")
    }
    if values:
        mended = room(
            processes=processes,
            others=others,
            pool_size=values["POOL_SIZE"],
            max_overflow=values["MAX_OVERFLOW"],
        )
        assert mended.fits
        assert mended.pool_size >= 1
    else:
        assert "Run fewer processes" in found.sentence
    assert room(
        processes=processes, others=others, pool_size=size, max_overflow=40, most=int(words[-1])
    ).fits


def test_a_full_server_has_nothing_left() -> None:
    assert room(others=200).left == 0
