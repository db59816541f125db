"""Statistics of examples by TensorFlow Data Validation, kept with a model, and distances between two of them.

{model}/statistics/
  examples.pb      raw features of the training examples, as StatisticsGen has them
  inputs.pb        the model's inputs in its training, as components/evaluation/input_columns.py takes them
  calibration.pb   the same of the examples that it was calibrated with, where it was

They are with the model, not looked for in ML Metadata, so that whoever finds the last blessed model has them: TFX's
runners here and Vertex's Resolver, which finds nothing but models and blessings.
"""

import os
from collections.abc import Mapping
from typing import Any

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import tensorflow_data_validation as tfdv
from tensorflow_data_validation.statistics import stats_impl
from tensorflow_metadata.proto.v0 import anomalies_pb2, schema_pb2, statistics_pb2
from tfx import types
from tfx.components.statistics_gen import stats_artifact_utils
from tfx.dsl.io import fileio

from components.evaluation.drift import Distance

DIRECTORY = "statistics"
EXAMPLES, INPUTS, CALIBRATION = "examples", "inputs", "calibration"
_ENDING = ".pb"
_MEASURES = {"L_INFTY": "L-infinity", "JENSEN_SHANNON_DIVERGENCE": "Jensen-Shannon divergence"}

Statistics = statistics_pb2.DatasetFeatureStatisticsList


def of_split(statistics: types.Artifact, split: str) -> Statistics:
    """Returns what StatisticsGen has of a split."""
    return stats_artifact_utils.load_statistics(statistics, split).proto()


def of_columns(columns: Mapping[str, npt.NDArray[Any]]) -> Statistics:
    """Returns the statistics of numbers, each column of shape (examples, values); at least one column."""
    arrays = [
        pa.ListArray.from_arrays(
            np.arange(0, values.size + 1, values.shape[1], dtype=np.int32),
            pa.array(np.ascontiguousarray(values.astype(np.float32 if values.dtype.kind == "f" else np.int64)).ravel()),
        )
        for values in columns.values()
    ]
    return stats_impl.generate_statistics_in_memory(pa.RecordBatch.from_arrays(arrays, list(columns)))


def to_files(statistics: Mapping[str, Statistics]) -> dict[str, bytes]:
    """Returns the content of the files in `DIRECTORY`, by name."""
    return {f"{name}{_ENDING}": found.SerializeToString(deterministic=True) for name, found in statistics.items()}


def of_model(model: types.Artifact) -> dict[str, Statistics]:
    """Returns what is kept with a model, by name; empty if an earlier version made it."""
    directory = os.path.join(model.uri, DIRECTORY)
    names = fileio.listdir(directory) if fileio.exists(directory) else []
    found = {}
    for name in names:
        with fileio.open(os.path.join(directory, name), "rb") as file:
            found[name.removesuffix(_ENDING)] = Statistics.FromString(file.read())
    return found


def features(statistics: Statistics) -> set[str]:
    """Returns the names of the features that there are statistics of."""
    return {".".join(feature.path.step) for feature in statistics.datasets[0].features}


def drift_anomalies(new: Statistics, baseline: Statistics) -> anomalies_pb2.Anomalies:
    """Returns what the drift comparator says of every feature that both have; with any distance above 0 as an anomaly.

    The measure is TFDV's for the feature's type: L-infinity for strings, Jensen-Shannon divergence for numbers.
    """
    schema = tfdv.infer_schema(baseline, infer_feature_shape=False)
    for feature in schema.feature:
        comparator = feature.drift_comparator
        is_text = feature.type == schema_pb2.BYTES
        (comparator.infinity_norm if is_text else comparator.jensen_shannon_divergence).threshold = 0.0
    return tfdv.validate_statistics(new, schema, previous_statistics=baseline)


def distances(
    anomalies: anomalies_pb2.Anomalies, prefix: str = "", against: str = "training examples"
) -> tuple[Distance, ...]:
    """Returns the distances that the comparator measured, by feature, each name with a prefix."""
    kinds = anomalies_pb2.DriftSkewInfo.Measurement.Type
    found = {
        ".".join(info.path.step): (_MEASURES[kinds.Name(one.type)], one.value)
        for info in anomalies.drift_skew_info
        for one in info.drift_measurements
    }
    return tuple(
        Distance(feature=f"{prefix}{name}", against=against, measure=measure, distance=value)
        for name, (measure, value) in sorted(found.items())
    )
