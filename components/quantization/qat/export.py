"""Export of a trained model as a SavedModel with the signatures that serving, evaluation and conversion need."""

import json
import logging
import warnings
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import tensorflow as tf
import tf_keras

from components.quantization.autograph import leave_libraries_alone
from components.quantization.conversion.convert import DENSE_SIGNATURE

# For what they register: loading finds their layers and functions by name.
from components.quantization.qat import quantize as _quantize  # noqa: F401
from components.quantization.qat.freezing import quantizers
from components.quantization.surgery import keras3_layers as _keras3_layers  # noqa: F401

_LOGGER = logging.getLogger(__name__)

# With what a model was compiled, as Keras writes it. Loaders of SavedModels leave this directory alone:
# https://github.com/tensorflow/tensorflow/blob/v2.16.2/tensorflow/python/saved_model/README.md
_COMPILED_FILE = Path("assets.extra") / "compile_config.json"
_MEASURES = ("loss", "loss_weights", "metrics", "weighted_metrics")

# The name that TFMA's preprocessing_function_names looks for by convention.
TRANSFORM_SIGNATURE = "transform_features"

FeatureSpec = Mapping[str, Any]


def export_saved_model(
    model: tf_keras.Model,
    directory: Path,
    *,
    transform: Callable[[Mapping[str, Any]], Mapping[str, Any]],
    raw_feature_spec: FeatureSpec,
    serving_features: frozenset[str],
    output_names: tuple[str, ...],
) -> None:
    """Writes a Keras SavedModel, without optimizer state, with three signatures and the model's loss and metrics.

    `serving_default` takes `examples`, serialized tf.Examples (string, shape (batch,)); `serving_dense` takes the
    model's own inputs, float32 features already transformed; `transform_features` takes `examples` and returns all
    transformed features, labels included.

    Args:
      model: The trained model.
      directory: Where to write; must not exist.
      transform: Trackable preprocessing from raw to transformed features, such as a TransformFeaturesLayer.
      raw_feature_spec: How to parse a tf.Example, labels included.
      serving_features: Names of the raw features that are there at serving time: all but labels.
      output_names: Names of the model's outputs in the signatures, in the model's order.
    """
    leave_libraries_alone()
    names = tuple(model.input_names)
    model.transform_layer = transform  # tracked by Keras, so that its tables and constants are saved too

    def outputs_of(features: Mapping[str, Any]) -> dict[str, tf.Tensor]:
        inputs = {name: features[name] for name in names}
        outputs = model(inputs if len(names) > 1 else inputs[names[0]], training=False)
        return dict(zip(output_names, tf.nest.flatten(outputs), strict=True))

    serialized = tf.TensorSpec([None], tf.string, name="examples")

    @tf.function(input_signature=[serialized])  # type: ignore[untyped-decorator]
    def serving_default(examples: tf.Tensor) -> dict[str, tf.Tensor]:
        spec = {name: value for name, value in raw_feature_spec.items() if name in serving_features}
        return outputs_of(model.transform_layer(tf.io.parse_example(examples, spec)))

    @tf.function(input_signature=[serialized])  # type: ignore[untyped-decorator]
    def transform_features(examples: tf.Tensor) -> dict[str, tf.Tensor]:
        return dict(model.transform_layer(tf.io.parse_example(examples, dict(raw_feature_spec))))

    dense = {n: tf.TensorSpec([None, *i.shape[1:]], i.dtype, name=n) for n, i in zip(names, model.inputs, strict=True)}

    @tf.function  # type: ignore[untyped-decorator]
    def serving_dense(**features: tf.Tensor) -> dict[str, tf.Tensor]:
        return outputs_of(features)

    signatures = {
        "serving_default": serving_default,
        DENSE_SIGNATURE: serving_dense.get_concrete_function(**dense),
        TRANSFORM_SIGNATURE: transform_features,
    }
    model.save(directory, save_format="tf", include_optimizer=False, signatures=signatures, save_traces=False)
    _write_measures(model, directory / _COMPILED_FILE)


def load_float_model(directory: Path) -> tf_keras.Model:
    """Loads a float Keras model from a SavedModel, to quantize it.

    Raises:
      ValueError: If the directory holds no tf_keras SavedModel.
    """
    return _load(directory, compiled=False)


def _load(directory: Path, compiled: bool) -> tf_keras.Model:
    leave_libraries_alone()
    try:
        model = tf_keras.models.load_model(directory, compile=compiled)
    except (OSError, ValueError, TypeError, AttributeError) as error:
        raise ValueError(
            f"base model {directory} cannot be loaded by tf_keras: {error}; save it with tf_keras (Keras 2) as a"
            " SavedModel"
        ) from error
    if not isinstance(model, tf_keras.Model):
        raise ValueError(f"base model {directory} is no Keras model; save it with tf_keras.Model.save")
    return model


def load_quantized_model(directory: Path) -> tf_keras.Model:
    """Loads a model with fake quantization from a SavedModel that `export_saved_model` wrote.

    Raises:
      ValueError: If the directory holds no such model.
    """
    model = load_float_model(directory)
    if not quantizers(model):
        raise ValueError(f"model {directory} has no fake quantization; it was not made by quantize_model")
    return model


def load_compiled_model(directory: Path) -> tf_keras.Model:
    """Loads a Keras model from a SavedModel, compiled with its own loss and metrics where these can be restored.

    They are those that `export_saved_model` or Keras itself wrote; classes and functions of the user's are found if
    their module can be imported. Where that fails the model is not compiled, and the log says why.

    Raises:
      ValueError: If the directory holds no tf_keras SavedModel.
    """
    kept = directory / _COMPILED_FILE
    try:
        if not kept.exists():
            return _load(directory, compiled=True)
        model = load_float_model(directory)
        # Any optimizer that holds no memory for each weight.
        model.compile_from_config({**json.loads(kept.read_text()), "optimizer": "sgd"})
    except Exception as error:  # whatever the constructors of the user's losses and metrics raise
        _LOGGER.info("loss and metrics of %s cannot be restored: %s", directory, error)
        return load_float_model(directory)
    return model


def _write_measures(model: tf_keras.Model, path: Path) -> None:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # of lambdas, which nobody restores
        try:
            config = model.get_compile_config() or {}
            text = json.dumps({name: config[name] for name in _MEASURES if name in config}, sort_keys=True)
        except Exception as error:  # whatever the get_config of the user's losses and metrics raises
            _LOGGER.info("loss and metrics of %s cannot be kept: %s", model.name, error)
            return
    path.parent.mkdir(exist_ok=True)
    path.write_text(text)
