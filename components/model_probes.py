"""Whether the models that QuantizedEvaluator was given can be evaluated, before one is run in its process."""

import dataclasses
from collections.abc import Mapping
from typing import Any

import apache_beam as beam
import tensorflow as tf
import tensorflow_model_analysis as tfma
from tensorflow.core.protobuf import saved_model_pb2
from tensorflow_model_analysis import constants
from tensorflow_model_analysis.proto import config_pb2, validation_result_pb2
from tfx import types
from tfx.dsl.io import fileio

from components import model_artifact
from components.evaluation.checks import fails
from components.evaluation.measurements import FLOAT, INTEGER, LAST_BLESSED
from components.evaluation.probe import Shapes, probe, strays, unreadable
from components.evaluation.verdict import Reason
from components.paired_evaluation import PAIRED_FILE
from components.quantization.contract.schema import Contract
from components.quantization.conversion.convert import DENSE_SIGNATURE
from components.quantization.qat.export import TRANSFORM_SIGNATURE

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
    features, outputs = _signatures(models[FLOAT])
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


def write_refused(pipeline: beam.Pipeline, config: config_pb2.EvalConfig, output_path: str) -> None:
    """Writes the results of an evaluation in which nothing was measured and nothing is valid."""
    with fileio.open(f"{output_path}/{PAIRED_FILE}", "w") as file:
        file.write('{"paired": [], "inputs": [], "outputs": [], "labels": []}\n')
    invalid = validation_result_pb2.ValidationResult(validation_ok=False)
    evaluation: dict[str, Any] = {
        constants.METRICS_KEY: pipeline | "NoMetrics" >> beam.Create([]),
        constants.VALIDATIONS_KEY: pipeline | "Invalid" >> beam.Create([invalid]),
    }
    writers = tfma.default_writers(output_path, eval_config=config, eval_shared_model=_shared(config))
    _ = evaluation | tfma.WriteResults(writers=writers)


def _shared(config: config_pb2.EvalConfig) -> list[Any]:
    names = [spec.name for spec in config.model_specs]
    return [tfma.EvalSharedModel(model_name=name, model_path="", model_type=constants.TF_GENERIC) for name in names]


def _of_contract(model: types.Artifact) -> list[Reason]:
    try:
        Contract.from_json(model_artifact.read_contract(model))
    except ValueError as error:
        return [fails(CANDIDATE, "incomplete", str(error))]
    return []


def _signatures(model: types.Artifact) -> tuple[Shapes, Shapes]:
    """Shapes of what a float model's transform gives, and of its outputs, without loading it."""
    with fileio.open(f"{model_artifact.serving_path(model)}/saved_model.pb", "rb") as file:
        signatures = saved_model_pb2.SavedModel.FromString(file.read()).meta_graphs[0].signature_def
    missing = [name for name in (TRANSFORM_SIGNATURE, DENSE_SIGNATURE) if name not in signatures]
    if missing:
        raise ValueError(f"the float model has no signature {', '.join(missing)}; connect QuantizeTrainer's")
    features, outputs = (signatures[name].outputs for name in (TRANSFORM_SIGNATURE, DENSE_SIGNATURE))
    return _shapes(features), _shapes(outputs)


def _shapes(infos: Mapping[str, Any]) -> Shapes:
    return {
        name: None if info.tensor_shape.unknown_rank else tuple(tf.TensorShape(info.tensor_shape).as_list())
        for name, info in infos.items()
    }
