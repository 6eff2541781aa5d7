"""Publisher and observer as the rig sees them: processes that are told, and answer, by lines."""

from __future__ import annotations

import asyncio
import json
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

ANSWER_SECONDS = 60


class Helper:
    """A process of the rig, spoken to in lines."""

    def __init__(self, module: str, arguments: Sequence[str], log: Path) -> None:
        self._command = [sys.executable, "-m", module, *arguments]
        self._log = log
        self._asking = asyncio.Lock()

    async def start(self) -> None:
        with self._log.open("ab") as log:
            self._process = await asyncio.create_subprocess_exec(
                *self._command,
                stdin=asyncio.subprocess.PIPE,
                stdout=asyncio.subprocess.PIPE,
                stderr=log,
                start_new_session=True,
            )

    async def says(self, word: str) -> None:
        """Wait until it says this of itself."""
        assert self._process.stdout is not None
        said = await asyncio.wait_for(self._process.stdout.readline(), ANSWER_SECONDS)
        if said.decode().strip() != word:
            raise RuntimeError(f"{self._command[2]} does not say {word!r}: see {self._log}")

    async def ask(self, line: str, *, within: float = ANSWER_SECONDS) -> str:
        """Say a line, and return the line that answers it."""
        async with self._asking:
            assert self._process.stdin is not None
            assert self._process.stdout is not None
            self._process.stdin.write(line.encode() + b"\n")
            await self._process.stdin.drain()
            answer = await asyncio.wait_for(self._process.stdout.readline(), within)
        if not answer:
            raise RuntimeError(f"{self._command[2]} has ended: see {self._log}")
        return answer.decode().strip()

    async def close(self) -> None:
        """Let it end in order; kill it where it does not."""
        if self._process.returncode is None:
            self._process.terminate()
        try:
            await asyncio.wait_for(self._process.wait(), 20)
        except TimeoutError:
            self._process.kill()
            await self._process.wait()


class Publisher(Helper):
    """`publisher.py`."""

    def __init__(
        self, url: str, exchange: str, *, seed: int, rate: float, book: Path, log: Path
    ) -> None:
        arguments = {
            "--url": url,
            "--exchange": exchange,
            "--seed": str(seed),
            "--rate": str(rate),
            "--book": str(book),
        }
        words = [word for pair in arguments.items() for word in pair]
        super().__init__("dev.chaos.publisher", words, log)

    async def pause(self, within: float = 10) -> bool:
        """Let everything be confirmed, and rest; whether that was possible in time."""
        answer = await self._order(do="pause", within=within)
        return bool(answer["paused"])

    async def resume(self) -> None:
        await self._order(do="resume")

    async def burst(self, count: int) -> None:
        """Have so many messages sent at once, beside the rate."""
        await self._order(do="burst", count=count)

    async def send(self, messages: Sequence[dict[str, Any]]) -> None:
        """Have these sent."""
        await self._order(do="send", messages=messages)

    async def stop(self) -> None:
        """Send nothing new, wait until all is confirmed."""
        await self.ask(json.dumps({"do": "stop"}), within=120)

    async def _order(self, **order: Any) -> dict[str, Any]:
        answer: dict[str, Any] = json.loads(await self.ask(json.dumps(order)))
        return answer
