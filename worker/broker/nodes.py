"""The nodes of a RabbitMQ cluster, in the order in which to try them."""

from __future__ import annotations

from collections import deque
from collections.abc import Iterator, Sequence
from random import Random

from yarl import URL

_random = Random()  # noqa: S311 - spreads load, guards nothing


class Nodes:
    """Every attempt begins with the node that was tried longest ago.

    So one that refused goes last, and one that answered as well, should something have been amiss
    there: it may be up and have lost sight of a queue's leader. The first order is drawn by lot,
    so that several workers spread over the nodes.
    """

    def __init__(self, urls: Sequence[str]) -> None:
        self._urls = deque(map(URL, _random.sample(urls, len(urls))))

    def __len__(self) -> int:
        return len(self._urls)

    def __iter__(self) -> Iterator[URL]:
        """One round: each node once, until one of them will do."""
        for _ in range(len(self._urls)):
            self._urls.rotate(-1)
            yield self._urls[-1]
