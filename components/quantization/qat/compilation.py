"""Compilation of a model with the loss and metrics of another, and an optimizer of its kind."""

from typing import Any

import tf_keras

from components.quantization.qat.parameters import TrainingParameters

_OWN_CLIPPING = ("clipnorm", "clipvalue", "global_clipnorm")


def refuse_mixed_precision(model: tf_keras.Model) -> None:
    """Checks that a model computes in float32.

    Raises:
      ValueError: If a layer does not.
    """
    policies = {layer.name: layer.compute_dtype for layer in model._flatten_layers(include_self=False)}
    wrong = [f"{name} ({dtype})" for name, dtype in policies.items() if dtype in ("float16", "bfloat16")]
    if wrong:
        raise ValueError(
            f"model {model.name!r} computes in half precision in {', '.join(wrong)}, expected float32 in all layers:"
            " fake quantization rounds to the grid of the integers, whose scales and accumulators need more than the 11"
            " bits that float16 has; remove tf_keras.mixed_precision.set_global_policy and the layers' dtype"
        )


def compile_as(
    model: tf_keras.Model, template: tf_keras.Model, learning_rate: float, total_steps: int, knobs: TrainingParameters
) -> None:
    """Compiles a model as another is, with a learning rate and gradient clipping of ours.

    Args:
      model: The model to compile.
      template: A compiled model of which nothing else is used afterwards: loss, metrics and optimizer are objects with
        a state, and may be the user's own functions, which a serialized configuration would lose.
      learning_rate: The learning rate, or where its schedule begins.
      total_steps: Steps of the loop, at the end of which a schedule ends.
      knobs: The schedule and the clipping.
    """
    arguments: dict[str, Any] = dict(template._compile_config.config)
    optimizer = tf_keras.optimizers.get(arguments["optimizer"])
    settings = {**optimizer.get_config(), "learning_rate": learning_rate}
    if knobs.learning_rate_schedule == "cosine":
        settings["learning_rate"] = tf_keras.optimizers.schedules.CosineDecay(learning_rate, total_steps)
    if knobs.gradient_clip_norm:
        settings = {name: value for name, value in settings.items() if name not in _OWN_CLIPPING}
        settings["global_clipnorm"] = knobs.gradient_clip_norm
    # One step per call: checkpoints and freezing count steps.
    ours = {"optimizer": type(optimizer).from_config(settings), "steps_per_execution": 1}
    model.compile(**{**arguments, **ours})


def build_optimizer(model: tf_keras.Model) -> list[Any]:
    """Makes the optimizer's variables, slots included, and returns them all."""
    optimizer = model.optimizer
    if isinstance(optimizer, tf_keras.optimizers.legacy.Optimizer):
        optimizer._create_all_weights(model.trainable_variables)
        return list(optimizer.variables())
    optimizer.build(model.trainable_variables)
    return list(optimizer.variables)
