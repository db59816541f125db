"""Runs all models on the same batches, in one pass.

Stock TFMA refuses to mix SavedModels and TFLite models, quantizes an integer model's input by truncation without
clipping, and takes every batch apart into examples, which costs more than to run a small model.
"""

import collections
import contextlib
import dataclasses
import math
import re
from collections.abc import Iterator, Mapping
from concurrent.futures import Future, ThreadPoolExecutor
from typing import Any

import apache_beam as beam
import numpy as np
import numpy.typing as npt
import pyarrow as pa
import tensorflow as tf
from apache_beam.transforms.window import GlobalWindows
from tensorflow_model_analysis import constants
from tensorflow_model_analysis.utils import util
from tfx_bsl.coders.example_coder import ExamplesToRecordBatchDecoder

from components.evaluation.decisions import Kind, checked_labels
from components.evaluation.flips import FlipSums
from components.evaluation.input_ranges import InputRange, InputSums
from components.evaluation.measurements import FLOAT, INTEGER
from components.evaluation.paired_statistics import Examples
from components.evaluation.unusable_baseline import run_of_last_blessed
from components.quantization.conversion.convert import DENSE_SIGNATURE
from components.quantization.interpreter import IntegerModel
from components.quantization.qat.export import TRANSFORM_SIGNATURE
from components.quantization.record_files import record_batches

Arrays = dict[str, npt.NDArray[Any]]

# A model sees at most so many bytes of input at once: with more its activations fill the caches, then the memory.
_CHUNK_BYTES = 2**20
BATCH_SIZE = 500
"""So many examples of a file go through the models at once, of large ones and the last ones of a file fewer."""
# Inputs and outputs of a batch take at most so much, of which a few batches are under way: images may be large.
_BATCH_BYTES = 2**26
# So many batches are on the way through the models while the metrics of the one before are computed.
_AHEAD = 3
INPUTS = "input_sums"
"""The extract that holds `InputSums` of a batch, by integer model and input."""
FLIPS = "flips"
"""The extract that holds `FlipSums` of a batch, by output; of outputs without classes there are none."""
# https://github.com/tensorflow/tensorflow/blob/v2.16.1/tensorflow/core/util/example_proto_fast_parsing.cc
_PARSE_ERROR = re.compile(r"\b(Key|Feature): .*")


@dataclasses.dataclass(frozen=True, kw_only=True, slots=True)
class EvaluatedModels:
    """What is run.

    Attributes:
      saved_models: Directories of SavedModels by name; `FLOAT`'s transform feeds all models but those in `transforms`,
        and makes the labels, the weights and the features of slices.
      tflites: Integer models by name.
      transforms: Directories of SavedModels whose transform feeds a model that was made with another one, by its name.
      label_keys: The transformed feature that is the label of each output; that of a model's only output under "".
      label_kinds: What the labels of outputs were declared to be, by output.
      weight_key: The transformed feature that is the weight of an example; "" for equal weights.
      flipped_examples: How many examples that get another class are kept, of each output.
      kept: Transformed features that slices or metrics need; others are dropped to save memory.
      raw: Features that they need and no transform makes, of the examples themselves.
    """

    saved_models: Mapping[str, str]
    tflites: Mapping[str, bytes]
    label_keys: Mapping[str, str]
    transforms: Mapping[str, str] = dataclasses.field(default_factory=dict)
    label_kinds: Mapping[str, Kind] = dataclasses.field(default_factory=dict)
    weight_key: str = ""
    flipped_examples: int = 0
    kept: frozenset[str] = frozenset()
    raw: frozenset[str] = frozenset()

    @property
    def names(self) -> tuple[str, ...]:
        """Names of all models."""
        return (*self.saved_models, *self.tflites)


def predicted(files: beam.PCollection, models: EvaluatedModels, threads: int) -> beam.PCollection:
    """Turns TFRecord files of examples into TFMA's extracts: features, labels, weights and predictions, in batches.

    It is one Beam step: what goes from one to another Beam measures by pickling it, and examples are large.

    Args:
      files: Paths.
      models: What is run.
      threads: How many threads the models of one of Beam's workers may use together; integer models have equal shares
        of them, SavedModels use all cores there are.
    """
    return files | "Predict" >> beam.ParDo(_PredictFn(models, threads))


class _PredictFn(beam.DoFn):  # type: ignore[misc]
    def __init__(self, models: EvaluatedModels, threads: int) -> None:
        self._models = models
        self._threads = threads

    def setup(self) -> None:
        self._saved = {name: tf.saved_model.load(path) for name, path in self._models.saved_models.items()}
        with run_of_last_blessed():
            self._transforms = {name: tf.saved_model.load(path) for name, path in self._models.transforms.items()}
        threads = max(1, self._threads // len(self._models.names))
        self._integer = {name: IntegerModel(tflite, threads=threads) for name, tflite in self._models.tflites.items()}
        # While a SavedModel waits for one core to end its share of a batch, the others go on with the next batch.
        self._callers = {name: ThreadPoolExecutor(2) for name in self._saved} | {
            name: ThreadPoolExecutor(1) for name in self._integer
        }
        self._batches = ThreadPoolExecutor(_AHEAD)
        self._batch_size = _batch_size(self._integer[INTEGER], len(self._models.names))

    def start_bundle(self) -> None:
        self._running: collections.deque[Future[dict[str, Any]]] = collections.deque()

    def process(self, file: str) -> Iterator[dict[str, Any]]:
        for batch in record_batches(file, self._batch_size):
            self._running.append(self._batches.submit(self._predicted, batch))
            if len(self._running) > _AHEAD:
                yield self._running.popleft().result()

    def finish_bundle(self) -> Iterator[Any]:
        while self._running:
            yield GlobalWindows.windowed_value(self._running.popleft().result())

    def teardown(self) -> None:
        for pool in (self._batches, *self._callers.values()):
            pool.shutdown()

    def _predicted(self, examples: npt.NDArray[Any]) -> dict[str, Any]:
        transformed = _transformed(self._saved[FLOAT], examples, FLOAT)
        features, names = _dense(transformed), self._models.names
        fed = dict.fromkeys(names, features)
        with run_of_last_blessed():
            fed |= {name: _dense(_transformed(loaded, examples, name)) for name, loaded in self._transforms.items()}
        scores = self._scores(fed)
        labels = self._labels(features, scores[FLOAT])
        weights = _weights(features, self._models.weight_key, len(next(iter(labels.values()))))
        kept = {name: util.to_tensor_value(transformed[name]) for name in transformed if name in self._models.kept}
        return {
            INPUTS: {
                (name, key): InputSums.of(fed[name][key], InputRange(low=low, high=high, step=step))
                for name, model in self._integer.items()
                for key, (low, high, step) in model.input_limits.items()
            },
            FLIPS: self._flips(features, labels, scores, weights.ravel()),
            constants.FEATURES_KEY: _raw_features(examples, self._models.raw),
            constants.TRANSFORMED_FEATURES_KEY: kept,
            # TFMA wants the bare array of a model with one output.
            constants.LABELS_KEY: {name: labels.get("", labels) for name in names},
            constants.EXAMPLE_WEIGHTS_KEY: dict.fromkeys(names, weights),
            constants.PREDICTIONS_KEY: {
                name: next(iter(scores[name].values())) if "" in labels else scores[name] for name in names
            },
        }

    def _flips(self, features: Arrays, labels: Arrays, scores: dict[str, Arrays], weights: Any) -> dict[str, FlipSums]:
        model = self._integer[INTEGER]
        inputs = {name: features[name] for name in model.input_names}
        limits = {name: (low, high) for name, (low, high, _) in model.input_limits.items()}
        found = {}
        for output, of in labels.items():
            ours, other = (scores[name][output or next(iter(scores[name]))] for name in (INTEGER, FLOAT))
            examples = Examples(
                labels=of[:, None] if of.ndim == 1 else of,
                scores=ours[:, None] if ours.ndim == 1 else ours,
                other_scores=other[:, None] if other.ndim == 1 else other,
                weights=weights,
                kind=self._models.label_kinds.get(output),
            )
            found[output] = FlipSums.of(examples, inputs, limits, self._models.flipped_examples)
        return {output: sums for output, sums in found.items() if sums is not None}

    def _scores(self, fed: Mapping[str, Arrays]) -> dict[str, Arrays]:
        runs = {
            **{name: self._callers[name].submit(_run_saved, it, fed[name]) for name, it in self._saved.items()},
            **{name: self._callers[name].submit(it.predict, fed[name]) for name, it in self._integer.items()},
        }
        scores = {}
        for name, run in runs.items():
            with run_of_last_blessed() if name in self._transforms else contextlib.nullcontext():
                scores[name] = run.result()
        expected = {name: values.shape for name, values in scores[FLOAT].items()}
        for name, outputs in scores.items():
            found = {output: values.shape for output, values in outputs.items()}
            if found != expected:
                raise ValueError(
                    f"model {name!r} gives {found}, expected {expected}, as the float model; evaluate models with the"
                    " same outputs"
                )
        return scores

    def _labels(self, features: Arrays, scores: Arrays) -> Arrays:
        keys = self._models.label_keys
        outputs = {"": next(iter(scores))} if len(scores) == 1 and "" in keys else {name: name for name in keys}
        unknown = sorted(set(outputs.values()) ^ set(scores))
        if unknown:
            raise ValueError(
                f"label_key: got labels for outputs {', '.join(keys) or 'none'}, expected one for each of"
                f" {', '.join(scores)}"
            )
        return {
            name: checked_labels(
                _feature(features, keys[name], "label"),
                scores[output],
                f"label {keys[name]!r}",
                self._models.label_kinds.get(name),
            )
            for name, output in outputs.items()
        }


def _batch_size(model: IntegerModel, models: int) -> int:
    """How many examples are a batch of so many models like this one, whose inputs and outputs are float32."""
    inputs, outputs = (sum(map(math.prod, of.values())) for of in (model.input_shapes, model.output_shapes))
    return max(1, min(BATCH_SIZE, _BATCH_BYTES // (4 * (inputs + models * outputs))))


def _raw_features(examples: npt.NDArray[Any], wanted: frozenset[str]) -> dict[str, Any]:
    """Features of the examples themselves, as TFMA takes them out."""
    if not wanted:
        return {}
    batch = ExamplesToRecordBatchDecoder().DecodeBatch(examples.tolist())
    names = [name for name in batch.schema.names if name in wanted]
    columns = [batch.column(batch.schema.get_field_index(name)) for name in names]
    found: dict[str, Any] = util.record_batch_to_tensor_values(pa.RecordBatch.from_arrays(columns, names))
    return found


def _transformed(loaded: Any, examples: npt.NDArray[Any], model: str) -> dict[str, Any]:
    try:
        return dict(loaded.signatures[TRANSFORM_SIGNATURE](examples=tf.constant(examples, tf.string)))
    except tf.errors.InvalidArgumentError as error:
        raise ValueError(
            f"examples cannot be parsed by the transform of model {model!r}: {_what_is_wrong(str(error.message))};"
            " evaluate examples with the features that the model was trained on"
        ) from error


def _dense(transformed: Mapping[str, Any]) -> Arrays:
    return {name: value.numpy() for name, value in transformed.items() if isinstance(value, tf.Tensor)}


def _what_is_wrong(message: str) -> str:
    """The line of TensorFlow's message that names the feature, which is not the first; the first if none does."""
    named = _PARSE_ERROR.search(message)  # to the end of its line
    return named[0].rstrip(" .") if named else message.partition("\n")[0]


def _feature(features: Arrays, key: str, what: str) -> npt.NDArray[Any]:
    if key not in features:
        raise ValueError(f"{what} {key!r} is no transformed feature; there are {', '.join(sorted(features))}")
    return features[key]


def _weights(features: Arrays, key: str, count: int) -> npt.NDArray[np.float32]:
    """Weights of shape (examples, 1)."""
    if not key:
        return np.ones((count, 1), np.float32)
    weights = _feature(features, key, "weight").astype(np.float32).reshape(count, -1)
    if weights.shape[1] != 1 or not (np.isfinite(weights) & (weights >= 0)).all():
        raise ValueError(f"weight {key!r}: expected one finite number of 0 or more for each example")
    return weights


def _run_saved(loaded: Any, features: Arrays) -> Arrays:
    signature = loaded.signatures[DENSE_SIGNATURE]
    wanted = signature.structured_input_signature[1]
    inputs = {name: _feature(features, name, "input") for name in wanted}
    for name, values in inputs.items():
        wrong = ~np.isfinite(values.reshape(len(values), -1)).all(axis=1) if values.dtype.kind == "f" else np.zeros(1)
        if wrong.any():
            raise ValueError(
                f"input {name!r} has values that are infinite or not numbers in {int(wrong.sum())} of {len(values)}"
                " examples; mend them in the preprocessing_fn"
            )
    count = len(next(iter(inputs.values())))
    one_at_a_time = any(spec.shape.rank and spec.shape[0] == 1 for spec in wanted.values())
    size = sum(values.nbytes for values in inputs.values()) // max(count, 1)
    step = 1 if one_at_a_time else max(1, _CHUNK_BYTES // max(size, 1))
    parts = [
        signature(**{name: tf.constant(values[start : start + step]) for name, values in inputs.items()})
        for start in range(0, count, step)
    ]
    return {name: np.concatenate([part[name].numpy() for part in parts]) for name in parts[0]}
