"""What `lora plan` and `lora apply` say of what a study will be able to conclude."""

from dataclasses import dataclass, replace
from typing import Any

from lorafile.plan.plan import Plan
from lorafile.study.study import Study


@dataclass(frozen=True)
class Conclusion:
    """It as sentences, and as documented JSON."""

    lines: tuple[str, ...]
    as_json: dict[str, Any] | None = None


def with_confounds(study: Study, plan: Plan) -> Plan:
    """Return a plan that warns of declared comparisons which will be refused, since something else differs as well."""
    configurations = len(plan.graph.spec.configurations)
    if not plan.work or not 1 < configurations <= _MOST or not study.may_be_confounded():
        return plan
    return replace(plan, warnings=(*plan.warnings, *study.confounds(plan)))


def conclusion(study: Study, plan: Plan, detect: str | None = None, gpu: str | None = None) -> Conclusion | None:
    """Return what a study will be able to conclude; None where nothing is to be done and nothing is asked.

    :param detect: the difference of `--detect`
    """
    if detect is None and (not plan.work or len(plan.graph.spec.configurations) < 2):
        return None
    if detect is None and len(plan.graph.spec.configurations) > _MOST:
        return Conclusion((_MANY,))
    if detect is None and not study.knows_variance(plan):  # which is known without loading what computes it
        return Conclusion((_UNKNOWN,))
    from lorafile.cli.views.sensitivity import sensitivity_json, sensitivity_lines

    found = study.detection(plan, detect, gpu) if detect is not None else None
    planned = found.planned if found else study.sensitivity(plan)
    if planned is None:
        return None
    lines = tuple(sensitivity_lines(planned, found, plan)) or (_UNKNOWN,)
    return Conclusion(lines, sensitivity_json(planned, found, plan))


_MOST = 1000  # configurations of which it is computed without being asked
_MANY = "Computing what this many configurations can detect takes a while. To do so, pass --detect 1pt."
_UNKNOWN = (
    "What the study can detect is unknown, because the variation between seeds is unknown. Set verdict.expect_sd to "
    'the standard deviation you expect, such as "1.5pt".'
)
