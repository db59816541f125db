"""Models inside a model become its own layers."""

from typing import Any

import tensorflow as tf
import tf_keras

from components.quantization.surgery.graph import Call, Copies, is_nested, nested_inputs, rebuilt, replay

TITLE = "inline nested models"


def applies(call: Call) -> bool:
    """Whether the call is of a functional model."""
    return is_nested(call)


def inlined(model: tf_keras.Model) -> tf_keras.Model:
    """Returns the model with the layers of nested models as its own, named `outer/inner`; shared ones stay shared.

    Layers of a nested model that is called with `training=False`, as transfer learning does, are called with it too;
    those of one that is not trainable are not either, whatever they say themselves, as it is in Keras.

    Raises:
      ValueError: If a nested model is called with a mask.
    """
    copies = Copies()

    def handler(
        call: Call, args: tuple[Any, ...], kwargs: dict[str, Any], prefix: str = "", frozen: bool = False
    ) -> Any:
        if not applies(call):
            return copies.of(call.layer, {"name": f"{prefix}{call.layer.name}"}, frozen)(*args, **kwargs)
        inner, training = call.layer, _told(call.layer, "training", args, kwargs)
        if _told(inner, "mask", args, kwargs) is not None:
            raise ValueError(
                f"model {prefix}{inner.name!r}: got a call with a mask, expected none; let a Masking or Embedding layer"
                " before it make the mask"
            )

        def nested(inner_call: Call, inner_args: tuple[Any, ...], inner_kwargs: dict[str, Any]) -> Any:
            if training is not None and _listens(inner_call.layer, inner_args, inner_kwargs):
                inner_args, inner_kwargs = inner_call.layer._call_spec.set_arg_value(
                    "training", training, inner_args, dict(inner_kwargs), inputs_in_args=True
                )
            still = frozen or not inner.trainable
            return handler(inner_call, inner_args, inner_kwargs, f"{prefix}{inner.name}/", still)

        inputs = nested_inputs(inner, args, kwargs)
        return replay(inner, [_cast(new, old) for old, new in zip(inner.inputs, inputs, strict=True)], nested)

    flat = rebuilt(model, handler)
    copies.copy_weights()
    return flat


def _told(layer: Any, name: str, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
    """What a call tells a layer in an argument that it has by default; None if nothing."""
    spec = layer._call_spec
    told = spec.arg_was_passed(name, args, kwargs, inputs_in_args=True)
    return spec.get_arg_value(name, args, kwargs, inputs_in_args=True) if told else None


def _listens(layer: Any, args: tuple[Any, ...], kwargs: dict[str, Any]) -> bool:
    """Whether a layer takes `training` from what calls it."""
    return bool(layer._call_spec.expects_training_arg) and _told(layer, "training", args, kwargs) is None


def _cast(tensor: Any, reference: Any) -> Any:
    """What a functional model makes of a tensor for an input of another dtype."""
    return tensor if tensor.dtype == reference.dtype else tf.cast(tensor, reference.dtype)
