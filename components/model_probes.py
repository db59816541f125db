"""Whether the models that QuantizedEvaluator was given can be evaluated, before one is run in its process."""

import dataclasses
from collections.abc import Mapping

import tensorflow as tf
from tensorflow_model_analysis import constants
from tensorflow_model_analysis.proto import config_pb2, validation_result_pb2
from tfx import types

from components import model_artifact
from components.evaluation.checks import fails
from components.evaluation.measurements import FLOAT, INTEGER, LAST_BLESSED
from components.evaluation.probe import probe, strays, unreadable
from components.evaluation.verdict import Reason
from components.evaluation_files import EvaluationFiles
from components.float_signatures import signature_shapes
from components.quantization.contract.schema import Contract

CANDIDATE = "integer model"
"""The check by which it is refused."""


@dataclasses.dataclass(frozen=True, kw_only=True, slots=True)
class Probed:
    """What was found.

    Attributes:
      refusals: Why the integer model cannot be evaluated.
      unusable: Why the last blessed model cannot be; empty without one.
    """

    refusals: tuple[Reason, ...] = ()
    unusable: tuple[str, ...] = ()


def probed(models: Mapping[str, types.Artifact]) -> Probed:
    """Loads and runs the integer models in processes of their own, and compares them with the float model.

    Args:
      models: Artifacts by name: the integer model, the float one, perhaps the last blessed one.

    Raises:
      ValueError: If the integer model has no TFLite file, or the float one is no SavedModel.
    """
    tflites = {INTEGER: model_artifact.read_tflite(models[INTEGER])}
    unusable: list[str] = []
    if LAST_BLESSED in models:
        try:
            tflites[LAST_BLESSED] = model_artifact.read_tflite(models[LAST_BLESSED])
        except (ValueError, OSError, tf.errors.OpError) as error:
            unusable.append(str(error))
    broken = {name: why for name, tflite in tflites.items() if (why := unreadable(tflite))}
    runs = probe({name: tflite for name, tflite in tflites.items() if name not in broken})
    features, outputs = signature_shapes(models[FLOAT])
    refusals = [fails(CANDIDATE, "unreadable", broken[INTEGER])] if INTEGER in broken else []
    unusable += [broken[LAST_BLESSED]] if LAST_BLESSED in broken else []
    for name, found in runs.items():
        stray = [] if found.failure else strays(found, features, outputs)
        if name == LAST_BLESSED:
            unusable += [found.failure] if found.failure else stray
        elif found.failure:
            refusals.append(fails(CANDIDATE, "crashed" if found.ended else "refused", found.failure))
        elif stray:
            refusals.append(fails(CANDIDATE, "signature", "; ".join(stray)))
    if LAST_BLESSED in models:  # with whose contract the model's own is compared
        refusals += _of_contract(models[INTEGER])
    return Probed(refusals=tuple(refusals), unusable=tuple(unusable))


def write_refused(config: config_pb2.EvalConfig, output_path: str) -> None:
    """Writes the results of an evaluation in which nothing was measured and nothing is valid."""
    files = EvaluationFiles(path=output_path, config=config, model_paths={}, confidence=0.95)
    invalid = validation_result_pb2.ValidationResult(validation_ok=False)
    files.write([(constants.VALIDATIONS_KEY, invalid.SerializeToString())])


def _of_contract(model: types.Artifact) -> list[Reason]:
    try:
        Contract.from_json(model_artifact.read_contract(model))
    except ValueError as error:
        return [fails(CANDIDATE, "incomplete", str(error))]
    return []
