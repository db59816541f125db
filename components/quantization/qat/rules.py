"""What an integer model does with each layer: which of its tensors have a range of their own, and which share one.

Constraints of the ops:
https://github.com/tensorflow/tensorflow/blob/v2.16.2/tensorflow/lite/g3doc/performance/quantization_spec.md
"""

import dataclasses
from typing import Any, Literal

import tf_keras

from components.quantization.qat import weight_quantization
from components.quantization.surgery import recurrent
from components.quantization.surgery.activations import activation_name
from components.quantization.surgery.affine import ChannelAffine
from components.quantization.surgery.graph import Call, is_masked, symbol
from components.quantization.surgery.normalization import ReciprocalRoot

layers = tf_keras.layers

# "weights": a kernel on its grid, an output with its own range.
# "affine": a normalization.
# "own": an output with a range of its own.
# "same": moves values, or picks among them: one range before and behind.
# "rounded": as same, with values in between.
# "fixed": the range that the kernel prescribes.
# "nothing": does nothing at inference.
# "calibrate": inside, the converter finds the ranges.
# "float": no integer op computes it.
Kind = Literal["weights", "affine", "own", "same", "rounded", "fixed", "nothing", "calibrate", "float"]
# Which tensor's values contain the other's, where they share a range.
Covers = Literal["input", "output", "neither"]

LOGISTIC_RANGE = (0.0, 255.0 / 256.0)  # scale 1/256, zero point -128
TANH_RANGE = (-1.0, 127.0 / 128.0)  # scale 1/128, zero point 0


@dataclasses.dataclass(frozen=True, kw_only=True, slots=True)
class Rule:
    """How a call is quantized.

    Attributes:
      kind: See above.
      covers: For one range before and behind.
      fixed: The range, where it is prescribed.
      reason: Why, where it is not trained; with the remedy.
    """

    kind: Kind
    covers: Covers = "input"
    fixed: tuple[float, float] | None = None
    reason: str = ""


_OWN = Rule(kind="own")
_MOVES = Rule(kind="same", covers="input")
_JOINS = Rule(kind="same", covers="output")
_PICKS = Rule(kind="same", covers="neither")
_ROUNDS = Rule(kind="rounded", covers="input")
_NOTHING = Rule(kind="nothing")
_LOGISTIC = Rule(kind="fixed", fixed=LOGISTIC_RANGE)
_TANH = Rule(kind="fixed", fixed=TANH_RANGE)


def _float(reason: str) -> Rule:
    return Rule(kind="float", reason=reason)


_BY_CLASS: dict[type, Rule] = {
    **dict.fromkeys(
        (
            layers.Dropout,
            layers.SpatialDropout1D,
            layers.SpatialDropout2D,
            layers.SpatialDropout3D,
            layers.GaussianDropout,
            layers.GaussianNoise,
            layers.AlphaDropout,
            layers.ActivityRegularization,
        ),
        _NOTHING,
    ),
    **dict.fromkeys(
        (
            layers.Reshape,
            layers.Flatten,
            layers.Permute,
            layers.RepeatVector,
            layers.MaxPooling1D,
            layers.MaxPooling2D,
            layers.GlobalMaxPooling1D,
            layers.GlobalMaxPooling2D,
            layers.ZeroPadding1D,  # 0 is in every range
            layers.ZeroPadding2D,
            layers.ZeroPadding3D,
            layers.Cropping1D,
            layers.Cropping2D,
            layers.Cropping3D,
            layers.UpSampling1D,
            layers.UpSampling3D,
        ),
        _MOVES,
    ),
    layers.Concatenate: _JOINS,
    **dict.fromkeys((layers.Maximum, layers.Minimum), _PICKS),
    **dict.fromkeys((layers.AveragePooling1D, layers.AveragePooling2D), _ROUNDS),
    **dict.fromkeys(
        (
            layers.Add,
            layers.Subtract,
            layers.Multiply,
            layers.ReLU,
            layers.LeakyReLU,
            layers.GlobalAveragePooling1D,
            layers.GlobalAveragePooling2D,
            layers.GlobalAveragePooling3D,
            layers.Embedding,
            ReciprocalRoot,
        ),
        _OWN,
    ),
    layers.Softmax: _LOGISTIC,
    layers.Conv3D: _float("TFLite's CONV_3D computes in floats only; use Conv2D on slices"),
    layers.Conv3DTranspose: _float("TFLite's CONV_3D_TRANSPOSE computes in floats only; use Conv2DTranspose on slices"),
    layers.MaxPooling3D: _float("TFLite has no op for it; pool with MaxPooling2D"),
    layers.AveragePooling3D: _float("TFLite has no op for it; pool with AveragePooling2D"),
    layers.ThresholdedReLU: _float("it compares and casts in floats; use ReLU"),
    layers.Masking: _float("it compares and casts in floats; pad with zeros and leave it out, or cut to equal lengths"),
    layers.GroupNormalization: _float("its batch normalization over groups computes in floats; use LayerNormalization"),
    layers.EinsumDense: _float("the converter leaves its input in floats; use Dense, with Permute and Reshape"),
}
_ACTIVATIONS = {
    "linear": _NOTHING,
    "sigmoid": _LOGISTIC,
    "softmax": _LOGISTIC,
    "tanh": _TANH,
    "relu": _OWN,
    "relu6": _OWN,
    "gelu": _OWN,
    "leaky_relu": _OWN,
    "softsign": _float("TFLite has no op for it; use tanh"),
}
_INTERPOLATIONS = {"nearest": _MOVES, "bilinear": _ROUNDS}
_UNKNOWN_INTERPOLATION = _float("TFLite has no op for this interpolation; use bilinear without antialias, or nearest")
# Functions that operators and calls of TensorFlow put into a graph.
_FUNCTIONS = {
    **dict.fromkeys(("add", "bias_add", "subtract", "multiply", "squared_difference", "rsqrt", "exp"), _OWN),
    **dict.fromkeys(("reduce_mean", "reduce_sum", "relu", "relu6", "leaky_relu", "gelu"), _OWN),
    **dict.fromkeys(("sigmoid", "softmax"), _LOGISTIC),
    **dict.fromkeys(("tanh", "l2_normalize"), _TANH),
    **dict.fromkeys(("reshape", "transpose", "squeeze", "expand_dims", "split", "unstack", "tile", "repeat"), _MOVES),
    **dict.fromkeys(("reduce_max", "reduce_min", "max_pool2d", "space_to_depth", "depth_to_space"), _MOVES),
    **dict.fromkeys(("getitem", "strided_slice", "slice", "gather", "reverse"), _MOVES),
    **dict.fromkeys(("concat", "stack", "pad"), _JOINS),
    **dict.fromkeys(("maximum", "minimum", "clip_by_value"), _PICKS),
    **dict.fromkeys(("avg_pool2d",), _ROUNDS),
    **dict.fromkeys(("identity", "stop_gradient"), _NOTHING),
}
_DIVISION = _float(
    "TFLite's DIV computes in floats only; divide by constants, or multiply by tf.math.rsqrt(x * x + epsilon) for x > 0"
)
_NO_INTEGERS = "TFLite computes it in floats only"
_FUNCTIONS |= {
    **dict.fromkeys(("truediv", "divide", "divide_no_nan", "div_no_nan", "reciprocal"), _DIVISION),
    **dict.fromkeys(
        ("floordiv", "floor_div", "floormod", "floor", "ceil", "round", "sign"),
        _float(f"{_NO_INTEGERS}; leave the rounding out"),
    ),
    **dict.fromkeys(("sin", "cos"), _float(f"{_NO_INTEGERS}; compute it before the model and make it an input")),
    **dict.fromkeys(("erf", "softsign"), _float(f"{_NO_INTEGERS}; use tanh")),
    "pow": _float(f"{_NO_INTEGERS} unless the exponent is 2 or 3; write it as products"),
    "sqrt": _float(f"{_NO_INTEGERS}; use x * tf.math.rsqrt(x + epsilon)"),
    "reduce_std": _float(f"{_NO_INTEGERS}; use tf.math.reduce_variance"),
    "crelu": _float("the converter leaves it in floats; concatenate tf.nn.relu(x) and tf.nn.relu(-x)"),
    "cumsum": _float(f"{_NO_INTEGERS}; use a Dense layer with a triangular kernel"),
}
_UNKNOWN = Rule(kind="calibrate", reason="no rule for it: its ranges are calibrated, not trained")
_RECURRENT = Rule(kind="calibrate", reason="its cell is computed in integers whose ranges are calibrated, not trained")


def rule_of(call: Call) -> Rule:
    """Returns the rule of a call."""
    layer = call.layer
    if not call.outputs[0].dtype.is_floating:
        return Rule(kind="calibrate", reason=f"returns {call.outputs[0].dtype.name}, which has no range")
    if isinstance(layer, layers.Embedding) and call.inputs[0].dtype.is_floating:
        return _float("its indices come as floats, which had to be cast; give the model's input dtype='int32'")
    if isinstance(layer, layers.GlobalAveragePooling1D) and is_masked(call):
        return _float("averages what a mask leaves, which TFLite does in floats; pool without one (mask_zero=False)")
    if symbol(layer):
        return _UNKNOWN_INTERPOLATION if _is_odd_resize(call) else _FUNCTIONS.get(symbol(layer), _UNKNOWN)
    if weight_quantization.has_kernel(layer):
        return _weighted(call)
    if isinstance(layer, layers.BatchNormalization | ChannelAffine):
        return _normalization(call)
    if isinstance(layer, layers.RNN | layers.Bidirectional):
        obstacle = recurrent.obstacle(call)
        return _float(obstacle) if obstacle else _RECURRENT
    if type(layer) is layers.Activation:
        return _ACTIVATIONS.get(activation_name(layer), _unknown_activation(layer))
    if type(layer) in (layers.UpSampling2D, layers.Resizing):
        return _INTERPOLATIONS.get(layer.interpolation, _UNKNOWN_INTERPOLATION)
    if isinstance(layer, layers.ReLU) and (layer.threshold or (layer.negative_slope and layer.max_value is not None)):
        return _float("a threshold, or a slope beside a bound, is computed in floats; use one of max_value and slope")
    if type(layer) is layers.Dot and len(call.inputs[0].shape) == 2:
        return _float("the converter refuses it on vectors; use Multiply, then tf.reduce_sum")
    return _BY_CLASS.get(type(layer), _UNKNOWN)


def _weighted(call: Call) -> Rule:
    layer = call.layer
    if isinstance(layer, layers.Dense) and len(call.inputs[0].shape) > 4:
        return Rule(
            kind="calibrate", reason="its input has more than 4 dimensions: calibrated; put a Reshape before it"
        )
    if getattr(layer, "data_format", "channels_last") != "channels_last":
        return _float("its channels come first, which TFLite has no kernel for; build it with channels_last")
    return Rule(kind="weights")


def _is_odd_resize(call: Call) -> bool:
    """Whether the call is of tf.image.resize by other than TFLite's bilinear or nearest."""
    if symbol(call.layer) != "resize":
        return False
    method = call.kwargs.get("method") or (call.args[2] if len(call.args) > 2 else "bilinear")
    return method not in _INTERPOLATIONS or bool(call.kwargs.get("antialias"))


def _normalization(call: Call) -> Rule:
    layer = call.layer
    if isinstance(layer, layers.BatchNormalization) and list(layer.axis) != [len(call.inputs[0].shape) - 1]:
        return Rule(kind="calibrate", reason="normalizes another axis than the last; put the channels last")
    if any(size is None for size in call.inputs[0].shape[1:]):
        return Rule(kind="calibrate", reason="its input has an unknown dimension; give the model static shapes")
    return Rule(kind="affine")


def _unknown_activation(layer: Any) -> Rule:
    return Rule(
        kind="calibrate", reason=f"no rule for activation {activation_name(layer)!r}: calibrated, not trained; use relu"
    )


def is_relu(call: Call) -> bool:
    """Whether the call is a ReLU or ReLU6, which TFLite fuses into the op before it."""
    layer = call.layer
    if isinstance(layer, layers.ReLU):
        return not layer.negative_slope and not layer.threshold and layer.max_value in (None, 6.0)
    if type(layer) is layers.Activation:
        return activation_name(layer) in ("relu", "relu6")
    return symbol(layer) in ("relu", "relu6")


def has_wide_kernel(call: Call, rule: Rule) -> bool:
    """Whether the call becomes an op of 8-bit weights, if any, that can have 16-bit inputs and outputs by itself."""
    if rule.kind == "weights":
        return type(call.layer) is not layers.PReLU
    return rule.kind == "affine" or (rule.kind == "fixed" and symbol(call.layer) != "l2_normalize")


def is_reshape(call: Call) -> bool:
    """Whether the call only gives its tensor another shape."""
    functions = ("reshape", "squeeze", "expand_dims")
    return isinstance(call.layer, layers.Reshape | layers.Flatten) or symbol(call.layer) in functions


def takes_relu(call: Call) -> bool:
    """Whether the call becomes an op that a ReLU behind it is fused into, by every converter and for every target."""
    layer = call.layer
    if isinstance(layer, layers.Conv2DTranspose):
        return False  # TRANSPOSE_CONV takes one only from version 4 on, which the Edge TPU's compiler does not know
    arithmetic = (layers.Add, layers.Subtract, layers.Multiply)
    names = (
        "math.add",
        "__operators__.add",
        "math.subtract",
        "__operators__.sub",
        "math.multiply",
        "__operators__.mul",
    )
    kind = rule_of(call).kind
    return (
        kind == "affine"
        or (kind == "weights" and type(layer) is not layers.PReLU)
        or (type(layer) in arithmetic or symbol(layer) in names)
    )
