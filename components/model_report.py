"""The report of a model: its documents out of artifacts, and the files that lie beside its verdict.

{blessing}/
  report.html   the page, as components/report makes it
  report.json   the documents that it is made of
"""

import json
import logging
import os
from collections.abc import Mapping
from typing import Any

from tfx import types
from tfx.dsl.io import fileio
from tfx.utils import io_utils

from components import model_artifact
from components.delivery.manifest import REPORT_FILE
from components.quantization.qat.progress import HISTORY_FILE
from components.report import derived
from components.report.facts import FACTS_FILE, FILES, Facts
from components.report.page import render
from components.retraining.spans import SPAN_FINGERPRINTS, SPANS

# What an ExampleGen records of what it read.
_EXAMPLE_FACTS = ("span", "version", "input_fingerprint", SPANS, SPAN_FINGERPRINTS)
_LOGGER = logging.getLogger(__name__)


def report_files(artifacts: Mapping[str, types.Artifact], target: str, verdict: str) -> dict[str, str]:
    """Returns the texts of the report's files by name.

    Args:
      artifacts: By the names that `components.report.facts.FILES` has for them, and "examples"; some may be missing.
      target: Name of the target.
      verdict: The text of verdict.json, which is written together with the report.

    Returns:
      Both files; none, with the reason in the log, where the page cannot be made: no model is refused for that.
    """
    try:
        facts = Facts(documents={**_documents(artifacts, target), "verdict": json.loads(verdict)})
        return {FACTS_FILE: facts.to_json(), REPORT_FILE: render(facts)}
    except Exception:  # a model that passed its gates must not be lost to a picture
        _LOGGER.exception("there is no report of the model")
        return {}


def read_report(blessing_uri: str) -> Facts:
    """Returns what the report of a run was made of.

    Args:
      blessing_uri: URI of the evaluator's blessing.

    Raises:
      ValueError: If no report was made.
    """
    path = os.path.join(blessing_uri, FACTS_FILE)
    if not fileio.exists(path):
        raise ValueError(f"{path} is not there: no report was made of this model; run the pipeline again")
    return Facts.from_json(io_utils.read_string_file(path))


def _documents(artifacts: Mapping[str, types.Artifact], target: str) -> dict[str, Any]:
    found = {
        name: _read(os.path.join(artifacts[key].uri, file)) for name, (key, file) in FILES.items() if key in artifacts
    }
    if "model_run" in artifacts:
        found["histories"] = _histories(artifacts["model_run"].uri)
    if "examples" in artifacts:
        found["examples"] = _of_examples(artifacts["examples"])
    tflite = model_artifact.read_tflite(artifacts["tflite_model"])
    try:
        if "compiled_model" not in artifacts:
            found["target_ops"] = derived.target_ops(tflite, target)
        found["weights"] = derived.weight_histograms(tflite, found.get("attribution"))
    except ValueError as error:  # of a file that is none, whose verdict says so
        _LOGGER.info("report: the model cannot be read: %s", error)
    return {name: document for name, document in found.items() if document is not None}


def _read(path: str) -> Any:
    """The document; None if there is none."""
    return json.loads(io_utils.read_string_file(path)) if fileio.exists(path) else None


def _histories(uri: str) -> dict[str, Any]:
    loops = sorted(name.rstrip("/") for name in fileio.listdir(uri)) if fileio.exists(uri) else []
    found = {loop: _read(os.path.join(uri, loop, HISTORY_FILE)) for loop in loops}
    return {loop: history for loop, history in found.items() if history is not None}


def _of_examples(artifact: types.Artifact) -> dict[str, Any]:
    facts: dict[str, Any] = {"uri": artifact.uri}
    for name in _EXAMPLE_FACTS:
        if artifact.has_custom_property(name):
            facts[name] = artifact.get_custom_property(name)
        elif name in (artifact.PROPERTIES or {}):
            facts[name] = getattr(artifact, name)
    return facts
