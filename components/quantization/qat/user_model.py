"""What a user's build_model may return, as the functional tf_keras model that is trained."""

import inspect
from typing import Any

import keras
import tf_keras

from components.quantization.surgery.prepare import functional

# What Keras 3 has in common with tf_keras; its other arguments are about back ends and half precision.
_SHARED_ARGUMENTS = ("optimizer", "loss", "loss_weights", "metrics", "weighted_metrics", "run_eagerly")
# Overridden, they make another training than fine-tuning could repeat on the quantized copy.
_OWN_TRAINING = ("train_step", "test_step", "compute_loss", "compute_metrics")
_HOMES = (
    (keras.losses.Loss, tf_keras.losses),
    (keras.metrics.Metric, tf_keras.metrics),
    (keras.optimizers.Optimizer, tf_keras.optimizers),
    (keras.optimizers.schedules.LearningRateSchedule, tf_keras.optimizers.schedules),
)


def trainable_model(model: Any) -> tf_keras.Model:
    """Returns a compiled model as a functional or Sequential one of tf_keras, compiled alike.

    Args:
      model: A compiled Keras model: one of tf_keras is returned as it is unless it is subclassed, which is captured;
        one of Keras 3 is rebuilt.

    Raises:
      ValueError: If it is no compiled Keras model, cannot be captured or rebuilt, or has a training of its own.
    """
    is_keras = isinstance(model, tf_keras.Model | keras.Model)
    config = getattr(model, "_compile_config", None)
    if not is_keras or config is None or config.config is None:
        raise ValueError("build_model: expected a compiled Keras model; call model.compile(loss=..., metrics=...)")
    is_ours = isinstance(model, tf_keras.Model)
    base = tf_keras.Model if is_ours else keras.Model
    own = [name for name in _OWN_TRAINING if getattr(type(model), name, None) is not getattr(base, name, None)]
    if own:
        raise ValueError(
            f"build_model: model {model.name!r} overrides {', '.join(own)}, which its quantized copy would not have;"
            " give loss and metrics to model.compile"
        )
    if is_ours and (isinstance(model, tf_keras.Sequential) or model._is_graph_network):
        return model
    arguments = dict(config.config)
    if not is_ours:
        arguments = {name: _translated(arguments[name]) for name in _SHARED_ARGUMENTS if name in arguments}
    plain = functional(model)
    plain.compile(**arguments)
    return plain


def _translated(value: Any) -> Any:
    """An argument of Keras 3's compile as one of tf_keras's."""
    if isinstance(value, dict):
        return {key: _translated(entry) for key, entry in value.items()}
    if isinstance(value, list | tuple):
        return [_translated(entry) for entry in value]
    for base, home in _HOMES:
        if isinstance(value, base) and type(value).__module__.startswith("keras."):
            return _same_class(value, home)
    if inspect.isfunction(value) and value.__module__.startswith("keras."):
        return value.__name__
    return value


def _same_class(value: Any, home: Any) -> Any:
    """The object of tf_keras's class of that name, with the settings that it has too."""
    name = type(value).__name__
    other = getattr(home, name, None)
    if other is None:
        raise ValueError(f"build_model: tf_keras has no {name}; compile the model with another one")
    known = set(inspect.signature(other.__init__).parameters)
    config = {key: setting for key, setting in value.get_config().items() if key in known}
    if "learning_rate" in config:
        config["learning_rate"] = _rate(value)
    return other(**config)


def _rate(optimizer: Any) -> Any:
    rate = getattr(optimizer, "_learning_rate", optimizer.learning_rate)
    is_schedule = isinstance(rate, keras.optimizers.schedules.LearningRateSchedule)
    return _translated(rate) if is_schedule else float(rate)
