"""The files of an evaluation: TFMA's, as TFMA's own functions read them, and those of `paired_evaluation` beside them.

TFMA's own writers have a sink for each file, which is a dozen Beam steps for a few kilobytes. Together they take as
long as a small model takes for thousands of examples.
"""

import dataclasses
import functools
import operator
import os
from collections.abc import Iterable, Mapping
from typing import Any

import apache_beam as beam
import tensorflow as tf
import tensorflow_model_analysis as tfma
from google.protobuf import json_format
from tensorflow_model_analysis import constants
from tensorflow_model_analysis.proto import config_pb2, validation_result_pb2
from tensorflow_model_analysis.writers import eval_config_writer, metrics_plots_and_validations_writer
from tfx.dsl.io import fileio

from components.paired_evaluation import SUMS, Key, documents
from components.quantization.record_files import records_of

Found = tuple[str, Any]
"""What a file's records are called in TFMA's evaluation, or `SUMS`; and one of them, which of TFMA's is bytes."""

_PROTOS = {
    constants.METRICS_KEY: functools.partial(
        metrics_plots_and_validations_writer.convert_slice_metrics_to_proto, add_metrics_callbacks=None
    ),
    constants.PLOTS_KEY: functools.partial(
        metrics_plots_and_validations_writer.convert_slice_plots_to_proto, add_metrics_callbacks=None
    ),
    constants.ATTRIBUTIONS_KEY: metrics_plots_and_validations_writer.convert_slice_attributions_to_proto,
}


@dataclasses.dataclass(frozen=True, kw_only=True, slots=True)
class EvaluationFiles:
    """Where an evaluation is written, and what it is of.

    Attributes:
      path: Directory, at a URI that Beam's workers see.
      config: TFMA's configuration.
      model_paths: Where the models are, by name, for people.
      confidence: Of the intervals of paired statistics, 0 to 1.
    """

    path: str
    config: config_pb2.EvalConfig
    model_paths: Mapping[str, str]
    confidence: float

    def transform(self) -> Any:
        """Returns the Beam step that writes all files of a TFMA evaluation with `SUMS` beside what TFMA has."""
        return _Write(self)

    def write(self, found: Iterable[Found]) -> None:
        """Writes all files.

        Args:
          found: All that was found; where there are no validations, nothing is valid.
        """
        by_kind: dict[str, list[Any]] = {}
        for kind, one in found:
            by_kind.setdefault(kind, []).append(one)
        fileio.makedirs(self.path)
        for kind in _PROTOS:
            self._write_records(f"{kind}-00000-of-00001.tfrecord", sorted(by_kind.get(kind, ())))
        validation = self._validation(by_kind.get(constants.VALIDATIONS_KEY, ()))
        self._write_records(f"{constants.VALIDATIONS_KEY}.tfrecord", [validation])
        run = config_pb2.EvalRun(
            eval_config=self.config, version=tfma.__version__, model_locations=dict(self.model_paths)
        )
        named = f"{eval_config_writer.EVAL_CONFIG_FILE}.{eval_config_writer.EVAL_CONFIG_FILE_FORMAT}"
        texts = {named: json_format.MessageToJson(run), **documents(by_kind.get(SUMS, ()), self.confidence)}
        for name, text in texts.items():
            with fileio.open(os.path.join(self.path, name), "w") as file:
                file.write(text)

    def _validation(self, found: Iterable[bytes]) -> bytes:
        combiner = metrics_plots_and_validations_writer.CombineValidations(self.config)
        merged = combiner.create_accumulator()
        for one in found:
            merged = combiner.add_input(merged, validation_result_pb2.ValidationResult.FromString(one))
        return bytes(combiner.extract_output(merged).SerializeToString())

    def _write_records(self, name: str, records: Iterable[bytes]) -> None:
        with tf.io.TFRecordWriter(os.path.join(self.path, name)) as writer:
            for record in records:
                writer.write(record)


def set_validity(path: str, is_valid: bool) -> None:
    """Writes anew whether `tfma.load_validation_result` says that the model is valid, as the verdict on it does.

    TFMA knows thresholds alone: no overrides, no confidence, no gates on facts, and no degenerate outputs. What it has
    found of those stays beside the flag, also if an override lets the model pass.

    Args:
      path: Directory of the files.
      is_valid: What it is to say.
    """
    file = os.path.join(path, f"{constants.VALIDATIONS_KEY}.tfrecord")
    (record,) = records_of(file).as_numpy_iterator()
    validation = validation_result_pb2.ValidationResult.FromString(record)
    validation.validation_ok = is_valid
    with tf.io.TFRecordWriter(file) as writer:
        writer.write(validation.SerializeToString())


class _Write(beam.PTransform):  # type: ignore[misc]
    def __init__(self, files: EvaluationFiles) -> None:
        super().__init__()
        self._files = files

    def expand(self, evaluation: Mapping[str, Any]) -> Any:
        converted = [
            evaluation[kind] | f"Serialize[{kind}]" >> beam.Map(_serialized, kind)
            for kind in (*_PROTOS, constants.VALIDATIONS_KEY)
            if kind in evaluation
        ]
        summed = evaluation[SUMS] | beam.CombinePerKey(_total) | beam.Map(_tagged)
        return (*converted, summed) | beam.Flatten() | beam.combiners.ToList() | beam.Map(self._files.write)


def _serialized(found: Any, kind: str) -> Found:
    message = _PROTOS[kind](found) if kind in _PROTOS else found
    return kind, message.SerializeToString()


def _tagged(sums: tuple[Key, Any]) -> Found:
    return SUMS, sums


def _total(sums: Iterable[Any]) -> Any:
    """Adds up; of nothing, as Beam asks for at the start, nothing."""
    given = [one for one in sums if one is not None]
    return functools.reduce(operator.add, given) if given else None
