"""What QuantizedEvaluator publishes of what it measured: figures in ML Metadata, and the blessing with the report."""

import logging
import math
from collections.abc import Mapping

from tfx import types
from tfx.components.evaluator import constants

from components.baseline_model import origin_of
from components.blessing import publish_verdict
from components.evaluation.gates import Gates
from components.evaluation.measurements import FLOAT, INTEGER, Measurements
from components.evaluation.verdict import Verdict
from components.last_blessed import ORIGIN_KEY
from components.model_probes import CANDIDATE

_BLESSING_FILES = (constants.BLESSED_FILE_NAME, constants.NOT_BLESSED_FILE_NAME)
_PAIRED_PROPERTIES = ("agreement", "better", "worse", "difference", "low", "high", "mcnemar_p")
_LOGGER = logging.getLogger(__name__)


def set_figures(evaluation: types.Artifact, measured: Measurements) -> None:
    """Sets the figures over all examples, and how they were measured, as properties; ML Metadata takes no NaN."""
    for name, fact in measured.facts.items():
        if isinstance(fact, str):
            evaluation.set_string_custom_property(name, fact)
    for name, value in _figures(measured).items():
        if math.isfinite(value):
            evaluation.set_float_custom_property(name, value)


def bless(
    blessing: types.Artifact,
    verdict: Verdict,
    gates: Gates,
    judged: Mapping[str, types.Artifact],
    report: Mapping[str, str],
) -> None:
    """Writes the blessing as the stock Evaluator does, with reasons and the report.

    Args:
      blessing: The artifact.
      verdict: What it says.
      gates: By which was judged.
      judged: The integer model and its float parent by name, and "compiled_model", if that is pushed.
      report: Texts of its files by name.
    """
    model, compiled = judged[INTEGER], judged.get("compiled_model")
    files = {"model": model, **({"compiled_model": compiled} if compiled is not None else {})}
    publish_verdict(blessing, verdict, _BLESSING_FILES, files, report)
    blessing.set_string_custom_property("overrides", gates.overrides_json())
    blessing.set_string_custom_property(ORIGIN_KEY, str(origin_of(model)))
    for reason in verdict.reasons:
        if not reason.gate or reason.gate == CANDIDATE:
            _LOGGER.warning("%s", reason.text)
    for key, name in (("current_model", INTEGER), ("baseline_model", FLOAT)):
        blessing.set_string_custom_property(key, judged[name].uri)
        blessing.set_int_custom_property(f"{key}_id", judged[name].id)


def _figures(measured: Measurements) -> dict[str, float]:
    found = {
        "_".join(filter(None, (cell.model, cell.output, name))): value
        for cell, values in measured.metrics.items()
        if not cell.slice
        for name, value in values.items()
    }
    for (model, output, cut), paired in measured.paired.items():
        if not cut:
            where = "_".join(filter(None, (output, "vs", model)))
            found |= {f"{where}_{name}": float(getattr(paired, name)) for name in _PAIRED_PROPERTIES}
    return found | {name: value for name, value in measured.facts.items() if isinstance(value, float)}
