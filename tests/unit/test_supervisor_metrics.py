"""Several pages of metrics become one that Prometheus can read."""

from __future__ import annotations

from collections.abc import Iterable

from aiohttp import web
from prometheus_client.parser import text_string_to_metric_families

from worker.service.supervisor.metrics import merge, merged_metrics
from worker.telemetry.health import Health
from worker.telemetry.instruments import Instrument, Reading

WAITS = Instrument("worker.waits", "counter", "{wait}", "How often.", ("why",))
LANES = Instrument("worker.lanes", "gauge", "{lane}", "How many.")
ODD = 'a "quoted" } and,\nbroken = 1'


def samples(text: str, name: str) -> dict[tuple[str, ...], float]:
    return {
        tuple(sample.labels.values()): sample.value
        for family in text_string_to_metric_families(text)
        for sample in family.samples
        if sample.name == name
    }


def health(value: float) -> Health:
    health = Health("127.0.0.1", 0)

    def read() -> Iterable[tuple[Instrument, Iterable[Reading]]]:
        return [(WAITS, [({"why": ODD}, value)]), (LANES, [({}, value)])]

    health.metrics.add(read)
    return health


async def test_every_process_is_in_it_under_its_number() -> None:
    async with health(1) as one, health(2) as two:
        page = await merged_metrics({1: one.url, 2: two.url})
    assert samples(page, "worker_waits_total") == {("1", ODD): 1, ("2", ODD): 2}
    assert samples(page, "worker_lanes") == {("1",): 1, ("2",): 2}
    assert page.count("# TYPE worker_lanes gauge\n") == 1
    families = [family.name for family in text_string_to_metric_families(page)]
    assert len(families) == len(set(families))  # the lines of each are in one group


async def test_a_process_that_does_not_answer_is_left_out() -> None:
    async with health(1) as one:
        async with health(2) as gone:
            url = gone.url
        async with Broken("127.0.0.1", 0) as broken:
            page = await merged_metrics({1: one.url, 2: url, 3: broken.url})
    assert samples(page, "worker_lanes") == {("1",): 1}
    assert await merged_metrics({}) == ""


class Broken(Health):
    def __init__(self, host: str, port: int) -> None:
        super().__init__(host, port)
        self._runner.app.on_response_prepare.append(self._fail)

    async def _fail(self, request: web.Request, response: web.StreamResponse) -> None:
        response.set_status(500)


def test_what_only_one_process_has_is_in_it() -> None:
    assert merge({1: "# TYPE a gauge\na 1\n", 2: "# TYPE b gauge\nb 2\n"}) == (
        '# TYPE a gauge\na{process="1"} 1\n# TYPE b gauge\nb{process="2"} 2\n'
    )
