"""SpanDrift: how far the examples of a run have drifted from those of the last blessed model, before it trains."""

import dataclasses
import itertools
import json
import logging
import os
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import tensorflow as tf
from tensorflow_metadata.proto.v0 import anomalies_pb2
from tfx import types
from tfx.components.distribution_validator import executor as stock
from tfx.dsl.components.base import base_component, base_executor, executor_spec
from tfx.types import artifact_utils, channel_utils, component_spec, standard_artifacts
from tfx.utils import io_utils

from components import drift_statistics, example_files, model_artifact
from components.evaluation import drift
from components.evaluation.drift import CALIBRATION, INPUTS, RANGE, Distance, Drift
from components.evaluation.gates import Gates, today
from components.evaluation.input_columns import InputColumns
from components.evaluation.input_ranges import InputRange, InputSums
from components.evaluation.judgement import judge_drift
from components.quantization import toolchain
from components.quantization.conversion import interface
from components.quantization.interpreter import IntegerModel
from components.quantization.qat.export import TRANSFORM_SIGNATURE

DRIFT_FILE, VERDICTS_FILE = "drift.json", "verdicts.json"
_BATCH = 100
# A split may have millions, of megabytes each; so many say how the inputs are distributed.
_COMPARED_EXAMPLES = 10_000
_NO_MODEL = "there is no last blessed model yet"
_NO_STATISTICS = "the last blessed model was made by an earlier version, which kept no statistics with it"
_LOGGER = logging.getLogger(__name__)


class Executor(base_executor.BaseExecutor):
    """Compares statistics; of examples it reads those of the model's inputs alone, which StatisticsGen has not."""

    def Do(
        self,
        input_dict: dict[str, list[types.Artifact]],
        output_dict: dict[str, list[types.Artifact]],
        exec_properties: dict[str, Any],
    ) -> None:
        """Measures, holds the gates, and publishes both, whatever they say."""
        output = artifact_utils.get_single_instance(output_dict["drift"])
        split = exec_properties["split"]
        found, anomalies = _measured(input_dict, split)
        verdicts = {
            target: judge_drift(Gates.from_json(gates), found.facts(), today())
            for target, gates in json.loads(exec_properties["gates"]).items()
        }
        with model_artifact.partial_output(output) as uri:
            io_utils.write_string_file(os.path.join(uri, DRIFT_FILE), found.to_json())
            texts = {target: json.loads(verdict.to_json()) for target, verdict in verdicts.items()}
            io_utils.write_string_file(os.path.join(uri, VERDICTS_FILE), json.dumps(texts, indent=2) + "\n")
            diff = os.path.join(uri, f"Split-{split}", stock.DEFAULT_FILE_NAME)
            io_utils.write_bytes_file(diff, anomalies.SerializeToString(deterministic=True))
        output.split_names = artifact_utils.encode_split_names([split])
        output.span = example_files.newest_span(artifact_utils.get_single_instance(input_dict["examples"]))
        reasons = [reason for verdict in verdicts.values() for reason in verdict.reasons]
        facts = {
            **found.facts(),
            "reasons": json.dumps(list(dict.fromkeys(reason.text for reason in reasons))),
            "reason_codes": ", ".join(sorted({reason.code for reason in reasons})),
        }
        model_artifact.set_facts(output, facts)
        _LOGGER.info("drift of split %s: %s", split, found.facts())


def _measured(input_dict: dict[str, list[types.Artifact]], split: str) -> tuple[Drift, anomalies_pb2.Anomalies]:
    """All distances, and what TFDV says of the raw features."""
    if not input_dict.get("baseline_model"):
        return Drift(no_baseline=_NO_MODEL), anomalies_pb2.Anomalies()
    baseline = artifact_utils.get_single_instance(input_dict["baseline_model"])
    kept = drift_statistics.of_model(baseline)
    if drift_statistics.EXAMPLES not in kept:
        return Drift(no_baseline=_NO_STATISTICS), anomalies_pb2.Anomalies()
    new = drift_statistics.of_split(artifact_utils.get_single_instance(input_dict["statistics"]), split)
    anomalies = drift_statistics.drift_anomalies(new, kept[drift_statistics.EXAMPLES])
    of_raw = Drift(distances=drift_statistics.distances(anomalies))
    if gone := drift_statistics.features(kept[drift_statistics.EXAMPLES]) - drift_statistics.features(new):
        why = f"the examples have no {', '.join(sorted(gone))} any more"
        return dataclasses.replace(of_raw, unmeasured=why), anomalies
    return _with_inputs(of_raw, baseline, kept, input_dict, split), anomalies


def read_drift(artifact: types.Artifact) -> Drift:
    """Returns what was measured."""
    return Drift.from_json(io_utils.read_string_file(os.path.join(artifact.uri, DRIFT_FILE)))


def read_verdicts(artifact: types.Artifact) -> dict[str, Any]:
    """Returns what the gates of each target say, as `Verdict.to_json` has it, by the target's name."""
    found: dict[str, Any] = json.loads(io_utils.read_string_file(os.path.join(artifact.uri, VERDICTS_FILE)))
    return found


def _with_inputs(
    found: Drift,
    baseline: types.Artifact,
    kept: Mapping[str, drift_statistics.Statistics],
    input_dict: dict[str, list[types.Artifact]],
    split: str,
) -> Drift:
    """Adds distances of the inputs of the last blessed model, made by its own preprocessing, and what it would clip."""
    tflite = model_artifact.read_tflite(baseline)
    names, _ = interface.signature_of(tflite)
    columns = InputColumns(tuple(names))
    clipped: dict[str, InputSums] = {}
    limits = IntegerModel(tflite).input_limits
    try:
        for batch in _inputs_of(baseline, input_dict["examples"], split, tuple(names)):
            columns.add(batch)
            for name, (low, high, step) in limits.items():
                sums = InputSums.of(batch[name], InputRange(low=low, high=high, step=step))
                clipped[name] = clipped[name] + sums if name in clipped else sums
    except (OSError, ValueError, KeyError, tf.errors.OpError) as error:
        why = f"the preprocessing of the last blessed model cannot be run on these examples: {error}".split("\n")[0]
        _LOGGER.warning("%s", why)
        return dataclasses.replace(found, unmeasured=why)
    new = drift_statistics.of_columns(columns.columns)
    further = [*found.distances]
    for name, prefix, against in (
        (drift_statistics.INPUTS, INPUTS, "training examples"),
        (drift_statistics.CALIBRATION, CALIBRATION, "calibration examples"),
    ):
        if name in kept:
            anomalies = drift_statistics.drift_anomalies(new, kept[name])
            further += drift_statistics.distances(anomalies, prefix, against)
    further += [
        Distance(feature=f"{RANGE}{name}", against="input range", measure="share of values beyond", distance=sums.share)
        for name, sums in clipped.items()
    ]
    return dataclasses.replace(found, distances=tuple(further))


def _inputs_of(
    model: types.Artifact, examples: list[types.Artifact], split: str, names: tuple[str, ...]
) -> Iterator[dict[str, Any]]:
    """Yields batches of the inputs that a model's own preprocessing makes of raw examples."""
    with model_artifact.local_saved_model(model_artifact.float_model_of(model)) as path:
        transform = tf.saved_model.load(str(path)).signatures[TRANSFORM_SIGNATURE]
        records = itertools.islice(example_files.read_split(examples, split), _COMPARED_EXAMPLES)
        while some := list(itertools.islice(records, _BATCH)):
            features = transform(examples=tf.constant(some))
            yield {name: features[name].numpy() for name in names}


class SpanDriftSpec(component_spec.ComponentSpec):
    """Inputs, output and parameters of SpanDrift."""

    PARAMETERS = {
        "gates": component_spec.ExecutionParameter(type=str),
        "split": component_spec.ExecutionParameter(type=str),
        "toolchain": component_spec.ExecutionParameter(type=str),
    }
    INPUTS = {
        "examples": component_spec.ChannelParameter(type=standard_artifacts.Examples),
        "statistics": component_spec.ChannelParameter(type=standard_artifacts.ExampleStatistics),
        "baseline_model": component_spec.ChannelParameter(type=standard_artifacts.Model, optional=True),
    }
    OUTPUTS = {"drift": component_spec.ChannelParameter(type=standard_artifacts.ExampleAnomalies)}


class SpanDrift(base_component.BaseComponent):
    """Measures drift by TensorFlow Data Validation.

    Output `drift`: an ExampleAnomalies with

      drift.json                   the distance of each feature, as components/evaluation/drift.py has it
      verdicts.json                what the gates of each target on drift say
      Split-{split}/SchemaDiff.pb  TFDV's own result for raw features, which `tfdv.display_anomalies` shows

    The figures and the reasons are its custom properties, too. It never fails for what it finds: DriftGate does.
    """

    SPEC_CLASS = SpanDriftSpec
    EXECUTOR_SPEC = executor_spec.ExecutorClassSpec(Executor)

    def __init__(
        self,
        *,
        examples: types.BaseChannel,
        statistics: types.BaseChannel,
        baseline_model: types.BaseChannel,
        gates: Mapping[str, Gates] | None = None,
        split: str = "train",
    ) -> None:
        """Declares the component.

        Args:
          examples: Raw examples; read for what the model's inputs are made of them, ten thousand at most.
          statistics: StatisticsGen's of them.
          baseline_model: The last blessed model, as TFLiteIntConverter made it with statistics; may have no artifact.
          gates: By target; those on drift are held.
          split: The split that is compared, with that of the same name.
        """
        held = {target: _only_drift(one).to_json() for target, one in (gates or {}).items()}
        super().__init__(
            SpanDriftSpec(
                examples=examples,
                statistics=statistics,
                baseline_model=baseline_model,
                gates=json.dumps(held),
                split=split,
                toolchain=toolchain.versions_json(),
                drift=channel_utils.as_channel([standard_artifacts.ExampleAnomalies()]),
            )
        )


def _only_drift(gates: Gates) -> Gates:
    kept = drift.of_drift(gates)
    names: Sequence[str] = [str(gate) for gate in kept]
    return Gates(bounds=kept, overrides=tuple(one for one in gates.overrides if one.gate in names))
