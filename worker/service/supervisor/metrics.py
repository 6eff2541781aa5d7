"""`/metrics` of several processes as one page: each sample says whose it is.

The children's own pages are fetched when the parent's is, and no library is needed to put them
together: the text format of Prometheus has a line a sample, and wants a family's lines in one group
(https://prometheus.io/docs/instrumenting/exposition_formats/).
"""

from __future__ import annotations

import asyncio
import re
from collections.abc import Mapping
from urllib.parse import urlsplit

FETCH_SECONDS = 3
CONTENT_TYPE = "text/plain; version=0.0.4; charset=utf-8"

_SAMPLE = re.compile(r"([a-zA-Z_:][a-zA-Z0-9_:]*)(\{)?")


async def merged_metrics(pages: Mapping[int, str]) -> str:
    """The metrics of all processes that answer, by their numbers; `pages` are their addresses."""
    found = await asyncio.gather(*(_fetch(url) for url in pages.values()))
    texts = zip(pages, found, strict=True)
    return merge({number: text for number, text in texts if text is not None})


def merge(texts: Mapping[int, str]) -> str:
    """One text of several; `process` is the first label of each sample."""
    families: dict[str, list[str]] = {}
    for number, text in texts.items():
        family: list[str] = []
        for line in text.splitlines():
            if line.startswith(("# HELP ", "# TYPE ")):
                family = families.setdefault(line.split(" ", 3)[2], [])
                if line not in family:
                    family.append(line)
            elif line and not line.startswith("#"):
                family.append(_labelled(line, number))
    return "".join(f"{line}\n" for family in families.values() for line in family)


def _labelled(sample: str, number: int) -> str:
    name = _SAMPLE.match(sample)
    assert name is not None
    label = f'{name[1]}{{process="{number}"'
    return label + (f",{sample[name.end() :]}" if name[2] else f"}}{sample[name.end() :]}")


async def _fetch(url: str) -> str | None:
    """The page beside this one, or nothing where none comes."""
    parts = urlsplit(url)
    try:
        async with asyncio.timeout(FETCH_SECONDS):
            reader, writer = await asyncio.open_connection(parts.hostname, parts.port)
            try:
                # In HTTP/1.0 the end of the connection is the end of the page.
                writer.write(b"GET /metrics HTTP/1.0\r\n\r\n")
                answer = await reader.read()
            finally:
                writer.close()
    except (OSError, TimeoutError):  # it has just ended, or is stuck
        return None
    head, _, body = answer.partition(b"\r\n\r\n")
    return body.decode() if b" 200 " in head.partition(b"\r\n")[0] else None
