"""Chaos for your own entities: break the worker's world, keep the book, read the verdict.

Beside a worker and importing none of it, so that it cannot share the worker's mistakes:
`proxy` breaks TCP links; `publisher` and `observer` keep a `book` of what was sent and what came;
`verdict` says what was lost, doubled or untrue. `plugin` offers all of it to pytest.
"""
