"""What a service says of what it has published."""

from __future__ import annotations

import json
from collections.abc import Sequence

import pytest

from tests.support.fakes import delivery, make_codec
from worker.broker.publisher.publisher import Faults
from worker.core.messages import DeadLetter, Done, Job, Publication, ResultEvent
from worker.service.service import Service
from worker.settings.settings import Settings
from worker.telemetry.logging import configure_logging

FORGED = "x\r\n2026-11-28T00:00:00.000000Z [info     ] forged\x1b[2J\u202e"


pytestmark = pytest.mark.usefixtures("logging_restored")


def job(**members: object) -> Job:
    command = {"type": "user.delete", "target": {"id": 1}} | members
    return Job(make_codec().decode(delivery(json.dumps(command))))


@pytest.mark.parametrize("form", ["json", "console"])
async def test_a_dead_letter_makes_a_line_once_it_is_published(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], form: str
) -> None:
    service = Service(Settings())
    said_before = []

    async def publish(publications: Sequence[Publication]) -> Faults:
        said_before.append(capsys.readouterr().err)
        return {}

    monkeypatch.setattr(service._publisher, "publish", publish)
    configure_logging(form=form)
    answer = ResultEvent("e", "user.delete.failed", b"{}")
    await service._meter.around_publishing(service._settlement.answer)(
        [
            (job(id="done"), Done(answer)),
            (job(id="c\u202e1"), DeadLetter(answer, "failed", FORGED, 5)),
        ]
    )
    (line,) = capsys.readouterr().err.splitlines()

    assert said_before == ["", ""]
    assert line.isprintable()
    if form == "json":
        told = json.loads(line)
        assert (told["event"], told["level"]) == ("dead letter", "info")
        assert [told[name] for name in ("id", "type", "code", "detail")] == [
            *("c\u202e1", "user.delete", "failed", FORGED)
        ]
    else:
        assert "[info     ] dead letter" in line
        assert "code=failed" in line
        assert "type=user.delete" in line
        assert "id=c\\u202e1" in line
