"""Unknown dimensions of a model's inputs get numbers."""

from typing import Any

import tf_keras

from components.quantization.input_shapes import InputShapes, fixed_shapes
from components.quantization.surgery.graph import Call, Copies, rebuilt
from components.quantization.surgery.prepare import functional
from components.quantization.surgery.proof import require_same_function

TITLE = "fix input shapes"


def fix_input_shapes(model: Any, input_shapes: InputShapes = None) -> tf_keras.Model:
    """Returns the model for inputs of known shapes; the batch stays as it is.

    What depends on them can be planned then: recurrent layers unroll over a known number of steps, and the plan counts
    multiplications.

    Args:
      model: A built Keras model, as `prepare` takes it.
      input_shapes: Shapes of inputs that have unknown dimensions, without the batch: by name, or that of the only
        input.

    Returns:
      A functional tf_keras model of copies of the layers, not compiled; the model itself if all shapes were known.

    Raises:
      ValueError: If a name is no input, a shape does not fit the model's, or a dimension stays unknown; lists all. Or
        if the model is none, or cannot compute on these shapes.

    >>> model = tf_keras.Sequential([tf_keras.layers.Conv1D(2, 3, input_shape=(None, 4))])
    >>> fix_input_shapes(model, (20, 4)).output_shape
    (None, 18, 2)
    """
    old = functional(model)
    known = {name: tuple(tensor.shape[1:]) for name, tensor in zip(old.input_names, old.inputs, strict=True)}
    shapes = fixed_shapes(known, input_shapes)
    if shapes == known:
        return old
    copies = Copies()

    def handler(call: Call, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
        return copies.of(call.layer)(*args, **kwargs)

    def make_input(tensor: Any) -> Any:
        name = tensor.node.layer.name
        return tf_keras.Input(batch_shape=(tensor.shape[0], *shapes[name]), dtype=tensor.dtype, name=name)

    try:
        fixed = rebuilt(old, handler, make_input=make_input)
    except ValueError as error:  # Keras, of a layer to which too little is left
        raise ValueError(
            f"model {old.name!r} cannot be built for inputs of {shapes}: {' '.join(str(error).split())[:300]}; give"
            " other input_shapes"
        ) from error
    copies.copy_weights()
    # Called with what the new one takes.
    require_same_function(lambda inputs, training: old(inputs, training=training), fixed, TITLE)
    return fixed
