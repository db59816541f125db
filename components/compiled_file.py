"""What QuantizedEvaluator has to know of the file that will be pushed in place of the model that it evaluates."""

import hashlib

from tfx import types

from components import model_artifact
from components.evaluation.gate import COMPILED, MODEL_BYTES


def compiled_facts(compiled: types.Artifact | None) -> dict[str, float | str]:
    """Returns its bytes, and whether a compiler made it; nothing without one."""
    if compiled is None:
        return {}
    found: dict[str, float | str] = {MODEL_BYTES: float(len(model_artifact.read_tflite(compiled)))}
    if compiled.has_custom_property(COMPILED):
        found[COMPILED] = float(compiled.get_int_custom_property(COMPILED))
    return found


def check_compiled_from(compiled: types.Artifact | None, model: types.Artifact) -> None:
    """Checks that what is pushed was made from what is evaluated, by their bytes.

    Raises:
      ValueError: If it was not, or was changed since.
    """
    if compiled is None:
        return
    parent = compiled.get_string_custom_property("parent_sha256")
    evaluated = hashlib.sha256(model_artifact.read_tflite(model)).hexdigest()
    if parent != evaluated:
        raise ValueError(
            f"compiled_model was made from the model {parent[:12]}, but {evaluated[:12]} is evaluated; connect the"
            " model that the compiler was given"
        )
    recorded = compiled.get_string_custom_property("sha256")
    pushed = hashlib.sha256(model_artifact.read_tflite(compiled)).hexdigest()
    if pushed != recorded:
        raise ValueError(
            f"compiled_model is the file {pushed[:12]}, but its compiler made {recorded[:12]}; compile it again"
        )
