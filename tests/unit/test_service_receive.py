"""What a service does with a delivery before its lane gets it."""

from __future__ import annotations

import json

import pytest

from tests.support.harness import Nowhere
from worker.core.messages import Delivery, Disallowed, Item
from worker.service.service import Service
from worker.settings.settings import Settings


@pytest.mark.parametrize("partitions", [1, 2])
def test_what_is_forbidden_is_barred_with_and_without_partitions(
    partitions: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    rules = {"authorization": {"shop": ["order.*"]}, "partitions": partitions}
    service = Service(Settings.model_validate(rules))
    taken: list[Item] = []
    monkeypatch.setattr(service._lanes, "submit", taken.append)
    user = {"username": "ann", "email": "ann@example.com"}
    body = json.dumps({"id": "c", "type": "user.create", "data": user}).encode()

    service._take(Delivery(body, 1, Nowhere()))

    assert [type(item) for item in taken] == [Disallowed]
