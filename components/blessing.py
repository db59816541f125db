"""What our evaluator and validator publish: the blessing of the stock component, with the reasons of a verdict.

{blessing}/
  BLESSED or NOT_BLESSED, or the names that the stock InfraValidator gives these
  verdict.json                                 as components/evaluation/verdict.py has it
  report.html and report.json                  of the evaluator: see components/model_report.py
"""

import json
from collections.abc import Mapping

from tfx import types
from tfx.components.evaluator import constants

from components import model_artifact
from components.evaluation.verdict import Verdict

VERDICT_FILE = "verdict.json"


def publish_verdict(
    blessing: types.Artifact, verdict: Verdict, files: tuple[str, str], further: Mapping[str, str] | None = None
) -> None:
    """Writes a blessing and its properties "blessed", "reasons", a JSON list, and "reason_codes".

    Args:
      blessing: The artifact.
      verdict: What it says.
      files: Names of the file that says that the model is blessed, and of that which says that it is not.
      further: Texts of further files by name.
    """
    with model_artifact.staged_output(blessing) as directory:
        (directory / files[0 if verdict.blessed else 1]).touch()
        (directory / VERDICT_FILE).write_text(verdict.to_json())
        for name, text in (further or {}).items():
            (directory / name).write_text(text, encoding="utf-8")
    value = constants.BLESSED_VALUE if verdict.blessed else constants.NOT_BLESSED_VALUE
    blessing.set_int_custom_property(constants.ARTIFACT_PROPERTY_BLESSED_KEY, value)
    blessing.set_string_custom_property("reasons", json.dumps(verdict.texts))
    blessing.set_string_custom_property("reason_codes", ", ".join(verdict.codes))
