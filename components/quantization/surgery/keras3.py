"""Keras 3 models, which is what `tf.keras` builds on TensorFlow >= 2.16, rebuilt in tf_keras (Keras 2)."""

import re
import zipfile
from pathlib import Path
from typing import Any

import h5py
import keras
import tensorflow as tf
import tf_keras

from components.quantization.surgery.keras3_graph import inputs_of
from components.quantization.surgery.keras3_rebuild import Rebuild
from components.quantization.surgery.proof import TOLERANCE, require_same_function
from components.quantization.surgery.source_lines import reason

TITLE = "rebuild in tf_keras"
_HALF_PRECISION_TOLERANCE = 1e-2  # of the range of the outputs


def from_keras3(model: keras.Model) -> tf_keras.Model:
    """Rebuilds a Keras 3 model in tf_keras, with its weights.

    Layers, inputs and outputs keep their names, and layers whether they are trainable; where TensorFlow does not allow
    a name, "_" takes the place of what it does not allow. Operations of keras.ops become functions of TensorFlow, and
    so do activation functions that tf_keras does not have or computes otherwise. All floats are float32.
    SpectralNormalization becomes the layer inside, with a warning: its kernel is divided already.

    The result is proved to compute the same: to 1e-5 of the range of each output, or to 1e-2 where the model computes
    in floats of 16 bits, as the policy mixed_float16 has it, whose roundings the result does not share.

    Args:
      model: A built Sequential, functional or subclassed Keras 3 model.

    Returns:
      A functional model, not compiled. Nested models stay nested; what a layer class of the user's calls becomes
      layers named `outer/inner`.

    Raises:
      ValueError: If something in it cannot be rebuilt, which names all of it, with remedies; or if the result computes
        something else.
    """
    rebuild = Rebuild()
    built = rebuild.model(model)
    if not rebuild.problems:
        rebuild.copy_weights()
    if rebuild.problems:
        raise ValueError(
            f"model {model.name!r}: got {len(rebuild.problems)} parts that tf_keras cannot be given, expected none: "
            + "; ".join(rebuild.problems)
        )
    inputs = inputs_of(model)

    def before(arguments: Any, training: bool) -> Any:
        return model(tf.nest.pack_sequence_as(inputs, tf.nest.flatten(arguments)), training=training)

    require_same_function(before, built, TITLE, _tolerance(model))
    return built


def _tolerance(model: keras.Model) -> float:
    """How exactly float32 can compute what a model computes."""
    half = any(layer.compute_dtype in ("float16", "bfloat16") for layer in model._flatten_layers())
    return _HALF_PRECISION_TOLERANCE if half else TOLERANCE


def load_model(path: Path) -> tf_keras.Model:
    """Loads a model that either Keras has saved; one of Keras 3 is rebuilt in tf_keras.

    Args:
      path: A `.keras` or `.h5` file, or the directory of a SavedModel that tf_keras wrote.

    Raises:
      ValueError: If there is no such model, or it cannot be loaded or rebuilt.
    """
    path = Path(path)
    library = keras if _is_keras3(path) else tf_keras
    try:
        model = library.models.load_model(str(path), compile=False)
    except Exception as error:  # whatever a file makes a deserializer raise
        raise ValueError(
            f"{path}: {library.__name__} cannot load it, got {type(error).__name__}: {reason(error)}; import the"
            " module that registers your own classes first, or build the model in code and load its weights"
        ) from error
    if not isinstance(model, keras.Model | tf_keras.Model):
        raise ValueError(
            f"{path}: got a SavedModel without a Keras model, as `export` writes it, expected one with its layers; save"
            " it with model.save('model.keras')"
        )
    return from_keras3(model) if library is keras else model


def _is_keras3(path: Path) -> bool:
    """Whether Keras 3 wrote a file."""
    version = ""
    if zipfile.is_zipfile(path):
        with zipfile.ZipFile(path) as archive:
            metadata = archive.read("metadata.json").decode() if "metadata.json" in archive.namelist() else ""
        found = re.search(r'"keras_version":\s*"([^"]+)"', metadata)
        version = found[1] if found else ""
    elif path.is_file() and h5py.is_hdf5(path):
        with h5py.File(path) as file:
            stored = file.attrs.get("keras_version", "2") if "model_config" in file.attrs else ""
        version = stored.decode() if isinstance(stored, bytes) else str(stored)
    elif (path / "saved_model.pb").is_file():
        version = "2"
    if not version:
        raise ValueError(
            f"{path}: got {'no whole Keras model' if path.exists() else 'nothing there'}, expected a .keras or .h5 file"
            " or the directory of a SavedModel; write it with model.save('model.keras')"
        )
    return not version.startswith(("1.", "2"))
