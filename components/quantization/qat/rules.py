"""What an integer model does with each layer: which of its tensors have a range of their own, and which share one.

Constraints of the ops:
https://github.com/tensorflow/tensorflow/blob/v2.16.2/tensorflow/lite/g3doc/performance/quantization_spec.md
"""

import dataclasses
from typing import Any, Literal

import tf_keras

from components.quantization.qat import weight_quantization
from components.quantization.surgery.activations import activation_name
from components.quantization.surgery.affine import ChannelAffine
from components.quantization.surgery.graph import Call, symbol
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
}
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
_UNKNOWN = Rule(kind="calibrate", reason="no rule for it: its ranges are calibrated, not trained")
_RECURRENT = Rule(kind="calibrate", reason="its cell is computed in integers whose ranges are calibrated, not trained")


def rule_of(call: Call) -> Rule:
    """Returns the rule of a call."""
    layer = call.layer
    if not call.outputs[0].dtype.is_floating:
        return Rule(kind="calibrate", reason=f"returns {call.outputs[0].dtype.name}, which has no range")
    if symbol(layer):
        return _FUNCTIONS.get(symbol(layer), _UNKNOWN)
    if weight_quantization.has_kernel(layer):
        return _weighted(layer)
    if isinstance(layer, layers.BatchNormalization | ChannelAffine):
        return _normalization(call)
    if isinstance(layer, layers.RNN | layers.Bidirectional):
        return _RECURRENT
    if type(layer) is layers.Activation:
        return _ACTIVATIONS.get(activation_name(layer), _unknown_activation(layer))
    if type(layer) is layers.UpSampling2D:
        return _MOVES if layer.interpolation == "nearest" else _ROUNDS
    if type(layer) is layers.Resizing:
        return _MOVES if layer.interpolation == "nearest" else _ROUNDS
    return _BY_CLASS.get(type(layer), _UNKNOWN)


def _weighted(layer: Any) -> Rule:
    if getattr(layer, "data_format", "channels_last") != "channels_last":
        return _float("its channels come first, which TFLite has no kernel for; build it with channels_last")
    return Rule(kind="weights")


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
    return isinstance(call.layer, layers.Reshape | layers.Flatten) or symbol(call.layer) == "reshape"


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
