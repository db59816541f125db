"""Operations of keras.ops as functions of TensorFlow."""

import numbers
from collections.abc import Callable
from typing import Any

import keras
import numpy as np
import tensorflow as tf
import tf_keras

from components.quantization.surgery.keras3_graph import REMEDY, RefusalError, tf_keras_dtype


def operated(node: Any, args: Any, kwargs: Any) -> Any:
    """Returns what an operation of keras.ops computes, by functions of TensorFlow.

    Args:
      node: The call of the operation.
      args: Its arguments, with tensors of tf_keras.
      kwargs: Likewise, by name.

    Raises:
      RefusalError: If there is no such function.
    """
    operation = node.operation
    function = _OPERATIONS.get(type(operation).__name__)
    if function is None:
        raise RefusalError(f"is an operation without a counterpart here; {REMEDY}")
    return function(operation, tf_keras_dtype(node.outputs[0].dtype), *args, **kwargs)


def _as(value: Any, dtype: str) -> Any:
    """A tensor or constant in a dtype."""
    if isinstance(value, numbers.Number) and dtype in ("float32", "int32", "bool"):
        return {"float32": float, "int32": int, "bool": bool}[dtype](value)
    if isinstance(value, numbers.Number | np.ndarray | list | tuple):
        return np.asarray(value, dtype)
    return value if value.dtype == dtype else tf.cast(value, dtype)


def _common_dtype(*values: Any) -> str:
    """The dtype in which Keras compares values."""
    kinds = [tf.as_dtype(value.dtype).name if hasattr(value, "dtype") else type(value) for value in values]
    return tf_keras_dtype(keras.backend.result_type(*kinds))


def _elementwise(function: Any) -> Any:
    return lambda o, dtype, x: function(_as(x, dtype))


def _binary(function: Any) -> Any:
    return lambda o, dtype, x, y: function(_as(x, dtype), _as(y, dtype))


def _comparison(function: Any) -> Any:
    return lambda o, dtype, x, y: function(_as(x, _common_dtype(x, y)), _as(y, _common_dtype(x, y)))


def _reduction(function: Any) -> Any:
    def reduced(o: Any, dtype: str, x: Any) -> Any:
        if getattr(o, "initial", None) is not None:
            raise RefusalError("reduces with an `initial` value; leave it out")
        return function(_as(x, dtype), axis=o.axis, keepdims=o.keepdims)

    return reduced


def _permuted(function: Any, x: Any, *axes: Any) -> Any:
    # An array whose sizes are the numbers of its axes tells how a function of NumPy permutes them.
    return tf.transpose(x, function(np.empty(range(len(x.shape))), *axes).shape)


def _hard_sigmoid(x: Any) -> Any:
    return tf.multiply(tf.nn.relu6(tf.add(x, 3.0)), 1.0 / 6.0)


def _expanded(o: Any, dtype: str, x: Any) -> Any:
    axes = np.atleast_1d(o.axis)
    rank = len(x.shape) + len(axes)
    for axis in sorted(int(axis) % rank for axis in axes):
        x = tf.expand_dims(x, axis)
    return x


def _split(o: Any, dtype: str, x: Any) -> Any:
    if isinstance(o.indices_or_sections, int):
        return tf.split(x, o.indices_or_sections, axis=o.axis)
    edges = [0, *o.indices_or_sections, x.shape[o.axis]]
    return tf.split(x, [int(size) for size in np.diff(edges)], axis=o.axis)


def _padded(o: Any, dtype: str, x: Any, constant_values: Any = None) -> Any:
    widths = [list(pair) for pair in o.pad_width] * (len(x.shape) if len(o.pad_width) == 1 else 1)
    return tf.pad(x, widths, o.mode.upper(), constant_values=constant_values or 0)


def _tiled(o: Any, dtype: str, x: Any) -> Any:
    repeats = [int(repeat) for repeat in np.atleast_1d(o.repeats)]
    if len(repeats) > len(x.shape):
        raise RefusalError("tiles along more axes than there are; use keras.ops.expand_dims first")
    return tf.tile(x, [1] * (len(x.shape) - len(repeats)) + repeats)


def _rounded(o: Any, dtype: str, x: Any) -> Any:
    if o.decimals:
        raise RefusalError("rounds to decimals; multiply, round and divide")
    return tf.round(x)


def _matmul(o: Any, dtype: str, x: Any, y: Any) -> Any:
    if len(x.shape) < 2 or len(y.shape) < 2 or (type(o).__name__ == "Dot" and len(y.shape) > 2):
        raise RefusalError("multiplies vectors; use keras.ops.einsum")
    return tf.matmul(_as(x, dtype), _as(y, dtype))


def _pooled(kind: Any) -> Any:
    def pooled(o: Any, dtype: str, x: Any) -> Any:
        if (o.data_format or keras.config.image_data_format()) != "channels_last":
            raise RefusalError("pools in channels_first; use channels_last")
        return kind(x, o.pool_size, o.strides or o.pool_size, o.padding.upper())

    return pooled


def _resized(o: Any, dtype: str, x: Any) -> Any:
    if (
        o.data_format == "channels_first"
        or getattr(o, "crop_to_aspect_ratio", 0)
        or getattr(o, "pad_to_aspect_ratio", 0)
    ):
        raise RefusalError("resizes in channels_first, or crops or pads; use channels_last, keras.ops.slice and pad")
    return tf.image.resize(x, o.size, method=o.interpolation, antialias=o.antialias)


def _arg_extreme(function: Any) -> Any:
    def found(o: Any, dtype: str, x: Any) -> Any:
        axis = 0 if o.axis is None else o.axis
        index = function(tf.reshape(x, [-1]) if o.axis is None else x, axis=axis, output_type=dtype)
        if not o.keepdims:
            return index
        return tf.expand_dims(index, axis) if o.axis is not None else tf.reshape(index, [1] * len(x.shape))

    return found


def _relu(o: Any, dtype: str, x: Any) -> Any:
    return tf_keras.layers.ReLU(o.max_value, o.negative_slope, o.threshold, name=o.name)(x)


def _glu(o: Any, dtype: str, x: Any) -> Any:
    values, gates = tf.split(x, 2, axis=o.axis)
    return tf.multiply(values, tf.sigmoid(gates))


def _normalized(o: Any, dtype: str, x: Any) -> Any:
    if o.order != 2:
        raise RefusalError("normalizes by another norm than the Euclidean; divide by keras.ops.sum or max")
    return tf.math.l2_normalize(x, axis=o.axis, epsilon=(o.epsilon or keras.config.epsilon()) ** 2)


def _celu(o: Any, dtype: str, x: Any) -> Any:
    return tf.nn.relu(x) + o.alpha * tf.math.expm1(tf.minimum(x, 0.0) / o.alpha)


def _squareplus(o: Any, dtype: str, x: Any) -> Any:
    return (x + tf.sqrt(tf.square(x) + float(o.b))) * 0.5


def _soft_shrunk(o: Any, dtype: str, x: Any) -> Any:
    return tf.nn.relu(x - o.threshold) - tf.nn.relu(-x - o.threshold)


def _sparse_plus(o: Any, dtype: str, x: Any) -> Any:
    return tf.where(x < 1.0, 0.25 * tf.square(tf.nn.relu(x + 1.0)), x)


def _named(kind: Callable[[Any], Any], module: Any, functions: str) -> dict[str, Any]:
    """Entries for functions that both call alike; Keras calls the operation of log_softmax LogSoftmax."""
    return {
        "".join(part.capitalize() for part in function.split("_")): kind(getattr(module, function))
        for function in functions.split()
    }


# By the class of the operation: what computes it, out of the operation, the dtype of its result and its arguments.
_OPERATIONS: dict[str, Callable[..., Any]] = {
    **_named(_elementwise, tf.math, "abs ceil cos cosh erf exp expm1 floor log log1p log_sigmoid logical_not negative"),
    **_named(_elementwise, tf.math, "reciprocal rsqrt sigmoid sign sin sinh softplus sqrt square tan tanh"),
    **_named(_elementwise, tf.nn, "elu relu relu6 selu silu softsign"),
    **_named(_elementwise, tf, "identity ones_like stop_gradient zeros_like"),
    **_named(_binary, tf.math, "add divide logical_and logical_or maximum minimum multiply subtract"),
    **_named(_comparison, tf, "equal greater greater_equal less less_equal not_equal"),
    "Absolute": _elementwise(tf.abs),
    "Copy": _elementwise(tf.identity),
    "Mish": _elementwise(lambda x: tf.multiply(x, tf.tanh(tf.math.softplus(x)))),
    "HardSigmoid": _elementwise(_hard_sigmoid),
    "HardSilu": _elementwise(lambda x: tf.multiply(x, _hard_sigmoid(x))),
    "HardTanh": _elementwise(lambda x: tf.clip_by_value(x, -1.0, 1.0)),
    "TanhShrink": _elementwise(lambda x: tf.subtract(x, tf.tanh(x))),
    "SparseSigmoid": _elementwise(lambda x: tf.clip_by_value(0.5 * (x + 1.0), 0.0, 1.0)),
    "Ravel": _elementwise(lambda x: tf.reshape(x, [-1])),
    "TrueDivide": _binary(tf.divide),
    "FloorDivide": _binary(tf.math.floordiv),
    "Mod": _binary(tf.math.floormod),
    "Power": _binary(tf.pow),
    "All": _reduction(tf.reduce_all),
    "Any": _reduction(tf.reduce_any),
    "Amax": _reduction(tf.reduce_max),
    "Amin": _reduction(tf.reduce_min),
    "Max": _reduction(tf.reduce_max),
    "Mean": _reduction(tf.reduce_mean),
    "Min": _reduction(tf.reduce_min),
    "Prod": _reduction(tf.reduce_prod),
    "Sum": _reduction(tf.reduce_sum),
    "Logsumexp": _reduction(tf.reduce_logsumexp),
    "Std": _reduction(tf.math.reduce_std),
    "Var": _reduction(tf.math.reduce_variance),
    "Argmax": _arg_extreme(tf.argmax),
    "Argmin": _arg_extreme(tf.argmin),
    "AveragePool": _pooled(tf.nn.avg_pool),
    "MaxPool": _pooled(tf.nn.max_pool),
    "BroadcastTo": lambda o, dtype, x: tf.broadcast_to(x, o.shape),
    "Cast": lambda o, dtype, x: tf.cast(x, dtype),
    "Celu": _celu,
    "Clip": lambda o, dtype, x: tf.clip_by_value(_as(x, dtype), _as(o.x_min, dtype), _as(o.x_max, dtype)),
    "Concatenate": lambda o, dtype, xs: tf.concat([_as(x, dtype) for x in xs], axis=o.axis),
    "Cumsum": lambda o, dtype, x: tf.cumsum(_as(x, dtype), axis=o.axis),
    "Dot": _matmul,
    "Matmul": _matmul,
    "Einsum": lambda o, dtype, *xs: tf.einsum(o.subscripts, *(_as(x, dtype) for x in xs)),
    "ExpandDims": _expanded,
    "Flip": lambda o, dtype, x: tf.reverse(
        x, range(len(x.shape)) if o.axis is None else np.atleast_1d(o.axis).tolist()
    ),
    "Gelu": lambda o, dtype, x: tf.nn.gelu(x, approximate=o.approximate),
    "GetItem": lambda o, dtype, x, key: x[key],
    "Glu": _glu,
    "HardShrink": lambda o, dtype, x: tf.where(tf.abs(x) > o.threshold, x, tf.zeros_like(x)),
    "LeakyRelu": lambda o, dtype, x: tf.nn.leaky_relu(x, alpha=o.negative_slope),
    "LogSoftmax": lambda o, dtype, x: tf.nn.log_softmax(x, axis=o.axis),
    "Moveaxis": lambda o, dtype, x: _permuted(np.moveaxis, x, o.source, o.destination),
    "Normalize": _normalized,
    "OneHot": lambda o, dtype, x: tf.one_hot(tf.cast(x, tf.int32), o.num_classes, axis=o.axis, dtype=dtype),
    "Pad": _padded,
    "ReLU": _relu,
    "Repeat": lambda o, dtype, x: tf.repeat(x, o.repeats, axis=o.axis),
    "Reshape": lambda o, dtype, x: tf.reshape(x, o.newshape),
    "Resize": _resized,
    "Roll": lambda o, dtype, x: tf.roll(x, o.shift, axis=o.axis),
    "Round": _rounded,
    "Slice": lambda o, dtype, x, start: tf.slice(x, start, o.shape),
    "SoftShrink": _soft_shrunk,
    "Softmax": lambda o, dtype, x: tf.nn.softmax(x, axis=o.axis),
    "SparsePlus": _sparse_plus,
    "Split": _split,
    "Squareplus": _squareplus,
    "Squeeze": lambda o, dtype, x: tf.squeeze(x, axis=o.axis),
    "Stack": lambda o, dtype, xs: tf.stack([_as(x, dtype) for x in xs], axis=o.axis),
    "Swapaxes": lambda o, dtype, x: _permuted(np.swapaxes, x, o.axis1, o.axis2),
    "Take": lambda o, dtype, x, indices: tf.gather(x, indices, axis=o.axis),
    "Tensordot": lambda o, dtype, x, y: tf.tensordot(_as(x, dtype), _as(y, dtype), axes=o.axes),
    "Threshold": lambda o, dtype, x: tf.where(x > o.threshold, x, float(o.default_value)),
    "Tile": _tiled,
    "TopK": lambda o, dtype, x: tuple(tf.math.top_k(x, o.k, sorted=o.sorted)),
    "Transpose": lambda o, dtype, x: tf.transpose(x, o.axes),
    "Unstack": lambda o, dtype, x: tf.unstack(x, o.num, axis=o.axis),
    "Where": lambda o, dtype, condition, x, y: tf.where(condition, _as(x, dtype), _as(y, dtype)),
}
