"""What the README shows is what one gets."""

from __future__ import annotations

import asyncio
import json
import re
import shutil
import subprocess
import sys
from base64 import b64encode
from pathlib import Path
from typing import Any
from urllib.parse import unquote

import pytest
from aiohttp import web
from aiohttp.test_utils import TestServer

from tests.support.harness import Harness

ROOT = Path(__file__).parents[2]
README = (ROOT / "README.md").read_text()


async def run(environment: dict[str, str], *command: str) -> str:
    process = await asyncio.create_subprocess_exec(
        *command,
        env=environment,
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.PIPE,
    )
    output, errors = await asyncio.wait_for(process.communicate(), 60)
    assert process.returncode == 0, errors.decode()
    return output.decode()


def comparable(text: str) -> list[str]:
    """The demo's lines without what differs from run to run, and where lines are broken by it."""
    text = re.sub(r"\s+", " ", text)
    text = re.sub(r"(?i)ann-[0-9a-f]{6}", "ann-…", text)
    text = re.sub(r"(user|order)/\d+", r"\1/1", text)
    text = re.sub(r"\"id\": \d+|user_id=\d+|in [\d.]+ s", "#", text)
    return re.split(r" (?=# |command |event )", text.strip())


async def test_the_demo_prints_what_the_first_screen_shows(
    harness: Harness, environment: dict[str, str]
) -> None:
    (shown,) = re.findall(r"<!-- demo -->\n```text\n(.*?)```\n<!-- /demo -->", README, re.DOTALL)
    printed = await run(environment | {"COLUMNS": "80"}, sys.executable, "-m", "worker", "demo")

    assert comparable(shown) == comparable(printed[: printed.index("\n\nThe same by hand")])


def snippet(language: str, containing: str) -> str:
    """A code block of the README."""
    blocks = re.findall(rf"```{language}\n(.*?)```", README, re.DOTALL)
    (block,) = [block for block in blocks if containing in block]
    return str(block)


def here(code: str, harness: Harness) -> str:
    """The code as it stands, but with this test's namespace in place of the default."""
    return code.replace("worker.commands", f"{harness.settings.namespace}.commands")


async def test_the_python_snippets_publish_commands(
    harness: Harness, environment: dict[str, str]
) -> None:
    async with harness.worker():
        await run(
            environment, sys.executable, "-c", here(snippet("python", "pika.Blocking"), harness)
        )
        assert (await harness.event("py-1")).routing_key == "user.created"
        await run(environment, sys.executable, "-c", here(snippet("python", "aio_pika"), harness))
        assert (await harness.event("py-2")).routing_key == "user.updated"


async def test_the_node_snippet_publishes_a_command(
    harness: Harness, environment: dict[str, str], tmp_path: Path
) -> None:
    if shutil.which("node") is None:
        pytest.skip("node is not here; nothing of ours depends on it")
    (tmp_path / "example.js").write_text(here(snippet("js", "amqplib"), harness))
    await run(environment, "node", "--check", str(tmp_path / "example.js"))
    found = await asyncio.create_subprocess_exec(
        *("node", "-e", 'require("amqplib")'), env=environment, stderr=asyncio.subprocess.DEVNULL
    )
    if await found.wait():
        pytest.skip("node finds no amqplib (NODE_PATH), so only the syntax was looked at")
    async with harness.worker():
        await run(environment, "node", str(tmp_path / "example.js"))
        assert (await harness.event("js-1")).routing_key == "order.create.rejected"  # no bob here


def takes_words() -> bool:
    """Whether the rabbitmqadmin that is here is of the first generation: `routing_key=any`."""
    helped = subprocess.run(
        ["rabbitmqadmin", "help", "subcommands"], capture_output=True, check=False
    )
    return b"routing_key=" in helped.stdout


async def test_rabbitmqadmin_is_understood(
    harness: Harness, environment: dict[str, str], unused_tcp_port: int
) -> None:
    """By what stands in for the management plugin, which would take seconds to start."""
    if shutil.which("rabbitmqadmin") is None:
        pytest.skip("rabbitmqadmin is not here; nothing of ours depends on it")
    second, first = re.findall(r"(rabbitmqadmin (?:.*\\\n)*.*'\n)", README)
    asked: list[tuple[str, str | None, dict[str, Any]]] = []

    async def publish(request: web.Request) -> web.Response:
        credentials = request.headers.get("Authorization")
        asked.append((request.raw_path, credentials, json.loads(await request.text())))
        return web.json_response({"routed": True})

    app = web.Application()
    app.router.add_post("/{path:.*}", publish)
    async with TestServer(app, host="localhost", port=unused_tcp_port):
        port = {"WORKER_MANAGEMENT_PORT": str(unused_tcp_port)}
        await run(environment | port, "sh", "-c", first if takes_words() else second)

    ((path, credentials, message),) = asked
    assert unquote(path) == "/api/exchanges///worker.commands/publish"
    assert credentials == f"Basic {b64encode(b'worker:worker').decode()}"
    assert message["properties"] == {"delivery_mode": 2}
    async with harness.worker():
        await harness.publish(message["payload"])
        assert (await harness.event("sh-2")).routing_key == "order.create.rejected"


async def test_amqp_publish_publishes_a_command(
    harness: Harness, environment: dict[str, str]
) -> None:
    if shutil.which("amqp-publish") is None:
        pytest.skip("amqp-publish (Debian: amqp-tools) is not here; nothing of ours depends on it")
    (line,) = re.findall(r"(amqp-publish .*?'\n)", README, re.DOTALL)
    async with harness.worker():
        await run(environment, "sh", "-c", here(line, harness))
        assert (await harness.event("sh-1")).routing_key == "user.delete.rejected"


async def test_the_example_commands_are_valid(harness: Harness) -> None:
    (block,) = re.findall(r"```json\n(.*?)```", README, re.DOTALL)
    async with harness.worker():
        for line in block.splitlines():
            await harness.publish(line)
        for number, line in enumerate(block.splitlines()):
            (id_,) = re.findall(r'"id": "([0-9a-f]+)"', line)
            event = await harness.event(id_)
            assert event.routing_key != "command.rejected", number
            assert event.json["data"].get("code") in (None, "not_found")


def test_no_example_gives_several_rows_the_value_that_one_may_have() -> None:
    pages = [ROOT / "README.md", *sorted((ROOT / "docs").glob("*.md"))]
    examples = [
        line
        for page in pages
        for line in page.read_text().splitlines()
        if "redrive --all" in line and "--set" in line
    ]
    assert examples  # there is one in the help
    assert not [line for line in examples if re.search(r"--set \S*(id|username|email)=", line)]
