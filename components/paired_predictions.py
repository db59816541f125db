"""A TFMA extractor that runs the float model and the integer model on the same batches, in one pass.

Stock TFMA refuses to mix the two kinds, and quantizes an integer model's input by truncation without clipping.
"""

from collections.abc import Iterator
from typing import Any

import apache_beam as beam
import numpy as np
import tensorflow as tf
import tensorflow_model_analysis as tfma
from tensorflow_model_analysis import constants

from components.evaluation.measurements import FLOAT, INTEGER
from components.quantization.conversion.convert import DENSE_SIGNATURE
from components.quantization.interpreter import IntegerModel
from components.quantization.qat.export import TRANSFORM_SIGNATURE


def paired_predictions_extractor(saved_model: str, tflite: bytes, kept_features: frozenset[str]) -> Any:
    """Creates the extractor.

    Args:
      saved_model: Directory of the float SavedModel; its transform feeds both models.
      tflite: The integer model.
      kept_features: Features that labels, weights and slices need; the others are dropped to save memory.
    """
    predict = beam.ParDo(_PredictFn(saved_model, tflite, kept_features))
    return tfma.extractors.Extractor(stage_name="ExtractPairedPredictions", ptransform=predict)


class _PredictFn(beam.DoFn):  # type: ignore[misc]
    """Adds transformed features and both models' predictions to batches of extracts."""

    def __init__(self, saved_model: str, tflite: bytes, kept_features: frozenset[str]) -> None:
        self._saved_model = saved_model
        self._tflite = tflite
        self._kept_features = kept_features

    def setup(self) -> None:
        self._loaded = tf.saved_model.load(self._saved_model)
        self._integer = IntegerModel(self._tflite)

    def process(self, extracts: dict[str, Any]) -> Iterator[dict[str, Any]]:
        examples = tf.constant(np.asarray(extracts[constants.INPUT_KEY], object).ravel(), tf.string)
        signatures = self._loaded.signatures
        transformed = signatures[TRANSFORM_SIGNATURE](examples=examples)
        dense = signatures[DENSE_SIGNATURE]
        inputs = {name: transformed[name] for name in dense.structured_input_signature[1]}
        scores = {
            FLOAT: {name: value.numpy() for name, value in dense(**inputs).items()},
            INTEGER: self._integer.predict({name: value.numpy() for name, value in inputs.items()}),
        }
        kept = {
            name: value.numpy()
            for name, value in transformed.items()
            if name in self._kept_features and isinstance(value, tf.Tensor)
        }
        raw = extracts[constants.FEATURES_KEY]
        yield {
            constants.INPUT_KEY: extracts[constants.INPUT_KEY],
            constants.FEATURES_KEY: {name: raw[name] for name in raw if name in self._kept_features},
            constants.TRANSFORMED_FEATURES_KEY: {INTEGER: kept, FLOAT: kept},
            # TFMA wants the bare array of a model with one output.
            constants.PREDICTIONS_KEY: {
                model: next(iter(outputs.values())) if len(outputs) == 1 else outputs
                for model, outputs in scores.items()
            },
        }
