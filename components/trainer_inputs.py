"""What QuantizeTrainer reads before it trains: hyperparameters, earlier models, which features a server gets."""

import hashlib
import json
import os
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import tensorflow_transform as tft
from tfx import types
from tfx.types import artifact_utils
from tfx.utils import io_utils

from components import model_artifact
from components.evaluation.gates import today
from components.evaluation.judgement import judge
from components.evaluation.measurements import of_all_examples
from components.quantization.agreement import EXAMPLE_COUNT
from components.quantization.qat import export
from components.quantization.qat.ladder import LadderOptions
from components.quantization.qat.parameters import TrainingParameters
from components.target_gates.planned_target import PlannedTarget

# A feature of the schema that is not in this environment is not there when the model serves.
_SERVING_ENVIRONMENT = "SERVING"


def checkpoint_dir(model: types.Artifact, exec_properties: dict[str, Any]) -> Path | None:
    """A directory that another attempt of this training finds again: beside its output, named after what it trains.

    A bucket must be mounted, as Vertex AI does under /gcs; without it an attempt starts anew.
    """
    uri = str(model.uri).rstrip("/")
    # Services give all attempts of a task one URI, TASK/model; local runners count executions, NODE/model/12.
    home = os.path.dirname(uri) if os.path.basename(uri) == "model" else os.path.dirname(os.path.dirname(uri))
    if home.startswith("gs://"):
        home = f"/gcs/{home.removeprefix('gs://')}"
        if not os.path.isdir(os.path.join("/gcs", home.split("/")[2])):
            return None
    if "://" in home:
        return None
    key = hashlib.sha256(json.dumps(exec_properties, sort_keys=True, default=str).encode()).hexdigest()[:16]
    return Path(home) / "checkpoints" / key


def read_hyperparameters(artifacts: list[types.Artifact] | None) -> dict[str, Any]:
    """Reads what a Tuner wrote: the configuration of keras_tuner's HyperParameters."""
    if not artifacts:
        return {}
    uri = artifact_utils.get_single_uri(artifacts)
    config = json.loads(io_utils.read_string_file(io_utils.get_only_uri_in_dir(uri)))
    values: dict[str, Any] = config.get("values", config)
    return values


def training_parameters(text: str, hyperparameters: dict[str, Any]) -> TrainingParameters:
    """Returns the parameters that the component was given as JSON, but for those that a Tuner found."""
    parameters = TrainingParameters(**json.loads(text))
    names = TrainingParameters.names()
    return parameters.updated({name: value for name, value in hyperparameters.items() if name in names})


def load_float(input_dict: dict[str, list[types.Artifact]], key: str) -> Any:
    """The float model that an input stands for: itself, or the one that an integer model was made from."""
    if not input_dict.get(key):
        return None
    model = model_artifact.float_model_of(artifact_utils.get_single_instance(input_dict[key]))
    with model_artifact.local_saved_model(model) as path:
        return export.load_float_model(path)


def ladder_options(targets: Sequence[PlannedTarget]) -> LadderOptions | None:
    """When a ladder is content: its model must keep the gates of all targets, measured as the first one gets it."""
    stops = list(dict.fromkeys(gates for gates in (one.gates.before_evaluation() for one in targets) if gates.bounds))
    if not stops:
        return None

    def judge_rung(integer: Mapping[str, float], parent: Mapping[str, float]) -> tuple[bool, tuple[str, ...]]:
        measured = of_all_examples(integer, parent, int(integer[EXAMPLE_COUNT]))
        verdicts = [judge(gates, measured, today()) for gates in stops]
        texts = dict.fromkeys(text for verdict in verdicts for text in verdict.texts)
        return all(verdict.blessed for verdict in verdicts), tuple(texts)

    first, *others = targets
    return LadderOptions(
        judge=judge_rung,
        profile=first.target,
        io_dtype=first.io_dtype,
        also_for=tuple((one.target, one.io_dtype) for one in others),
    )


def serving_features(
    input_dict: dict[str, list[types.Artifact]], transform: tft.TFTransformOutput, training_only: list[str]
) -> frozenset[str]:
    """All raw features but labels and weights, and those that the schema keeps out of serving."""
    raw = frozenset(transform.raw_feature_spec())
    unknown = sorted(set(training_only) - raw)
    if unknown:
        raise ValueError(
            f"label_key or weight_key {', '.join(map(repr, unknown))} is no raw feature; there are"
            f" {', '.join(sorted(raw))}"
        )
    schema = io_utils.SchemaReader().read(
        io_utils.get_only_uri_in_dir(artifact_utils.get_single_uri(input_dict["schema"]))
    )
    absent = {feature.name for feature in schema.feature if _SERVING_ENVIRONMENT in feature.not_in_environment}
    return raw - absent - set(training_only)
