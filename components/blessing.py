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
    blessing: types.Artifact,
    verdict: Verdict,
    files: tuple[str, str],
    models: Mapping[str, types.Artifact],
    further: Mapping[str, str] | None = None,
) -> None:
    """Writes a blessing and its properties.

    These are "blessed", "reasons", a JSON list, "reason_codes", and of each model that was judged the sha256 under its
    name with "_sha256" behind it.

    Args:
      blessing: The artifact.
      verdict: What it says.
      files: Names of the file that says that the model is blessed, and of that which says that it is not.
      models: What was judged, by name; what no component of ours made has no sha256 and gets none.
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
    for name, model in models.items():
        if sha256 := model.get_string_custom_property("sha256"):
            blessing.set_string_custom_property(f"{name}_sha256", sha256)
