"""From what was measured to what it means: adds checks, models, diagnoses and a recommendation."""

from __future__ import annotations

from worker.lab.checks import check_point, check_run
from worker.lab.choice import NoRecommendation
from worker.lab.findings import ScalabilityFit
from worker.lab.measured import Point
from worker.lab.model import fit_usl, predict
from worker.lab.recommend import recommend
from worker.lab.repeats import Repeats, by_setting
from worker.lab.results import Result
from worker.lab.sizing import diagnose


def analyse(result: Result) -> Result:
    """The result with all findings, worked out anew from its measurements alone.

    Pure but for time: some seconds of simulation for a sweep. The same measurements and seed give
    the same findings.
    """
    points = tuple(_with_findings(point, result.about.seed) for point in result.points)
    groups = by_setting(points)
    measured = result.model_copy(update={"points": points})
    measured = measured.model_copy(update={"checks": check_run(measured, groups)})
    fit = _fit(groups)
    advice, why_none = None, None
    try:
        advice = recommend(measured, groups, fit)
    except NoRecommendation as refusal:
        why_none = str(refusal)
    return measured.model_copy(
        update={
            "fit": fit,
            "diagnoses": diagnose(groups, result.about),
            "recommendation": advice,
            "no_recommendation_because": why_none,
        }
    )


def _with_findings(point: Point, seed: int) -> Point:
    return point.model_copy(
        update={"checks": check_point(point), "predictions": predict(point, seed=seed)}
    )


def _fit(groups: list[Repeats]) -> ScalabilityFit | None:
    """Over the settings of one kind that a load filled; the kind that filled most sizes."""
    kinds: dict[object, list[Repeats]] = {}
    for each in groups:
        if each.is_full:
            kind = (each.setting.path, each.setting.load, each.setting.group_size)
            kinds.setdefault((*kind, each.setting.rate_per_second), []).append(each)
    full = max(kinds.values(), key=len, default=[])
    return fit_usl(full)
