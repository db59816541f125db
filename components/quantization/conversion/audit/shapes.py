"""Rules of shapes, and of what the target and the scheme ask for."""

from collections.abc import Iterator

from components.quantization.conversion.audit.numerics import fits
from components.quantization.conversion.audit.rules import OF_REAL_NUMBERS, QUANTIZED, Found, Place, Rule, weighted
from components.quantization.conversion.flatbuffer import Tensor

_BITS = {"INT4": 4, "INT8": 8, "UINT8": 8, "INT16": 16}

DYNAMIC = Rule(
    name="dynamic-shape",
    kind="shape",
    text="Every dimension of every tensor is known before run time.",
    fix="convert from a function with a fixed batch and fixed dimensions",
)
CONSTANT_SIZE = Rule(
    name="constant-size",
    kind="shape",
    text="A constant has as many bytes as its shape and type ask for.",
    fix="convert the model again: the file is damaged or was edited",
)
OP_VERSION = Rule(
    name="op-version",
    kind="profile",
    text="The target's parser knows every op in its version.",
    fix="replace the op in the model",
)
DENSE_SCALES = Rule(
    name="dense-scales",
    kind="profile",
    text="Weights of Dense layers have one scale where the target takes one.",
    fix="convert for this target, which turns per-channel Dense off",
)
WEIGHT_SCALES = Rule(
    name="weight-scales",
    kind="profile",
    text="Weights of convolutions have one scale where the target takes one.",
    fix="train and convert with a scheme of one scale per tensor, such as full_int8_per_tensor",
)
WEIGHT_BITS = Rule(
    name="weight-bits",
    kind="profile",
    text="Weights are as wide as the target can read.",
    fix="use a scheme with 8-bit weights",
)
ACTIVATION_TYPE = Rule(
    name="activation-type",
    kind="profile",
    text="Layers, pools and activation functions compute in a quantized type that the target has kernels for.",
    fix="convert the model again, with a scheme of such activations; inputs and outputs of it may be UINT8",
)
SCHEME_SCALES = Rule(
    name="scheme-scales",
    kind="scheme",
    text="Weights have one scale where the scheme has one per tensor.",
    fix="convert the model with the scheme that it was trained with",
)
SCHEME_BITS = Rule(
    name="scheme-bits",
    kind="scheme",
    text="Weights are of a width that the scheme has.",
    fix="convert the model with the scheme that it was trained with",
)
RULES = (
    *(DYNAMIC, CONSTANT_SIZE, OP_VERSION, DENSE_SCALES, WEIGHT_SCALES, WEIGHT_BITS, ACTIVATION_TYPE),
    *(SCHEME_SCALES, SCHEME_BITS),
)


def check(place: Place) -> Iterator[Found]:
    """Yields what breaks the rules of an op."""
    for tensor in (*place.inputs, *place.outputs):
        if not fits(tensor):
            reason = f"{len(tensor.constant or b'')} bytes for {tensor.dtype} of shape {list(tensor.shape)}"
            yield Found(rule=CONSTANT_SIZE, tensor=tensor, reason=reason)
    for tensor in place.outputs:
        if tensor.dynamic:
            suffix = f", {place.profile.name} takes static shapes" if place.profile else ""
            yield Found(rule=DYNAMIC, tensor=tensor, reason=f"has a dynamic dimension{suffix}")
    yield from _profile(place)
    yield from _scheme(place)


def edge(tensor: Tensor, _: str) -> Iterator[Found]:
    """Yields whether an input or output of the model has an unknown dimension."""
    if tensor.dynamic:
        yield Found(rule=DYNAMIC, tensor=tensor, reason="has a dynamic dimension")


def _profile(place: Place) -> Iterator[Found]:
    profile = place.profile
    if profile is None:
        return
    problem = profile.version_problem(place.op.code, place.op.version)
    if problem is not None:
        yield Found(rule=OP_VERSION, tensor=None, reason=problem.reason, fix=problem.fix)
    for tensor in place.inputs:
        if tensor.dtype == "INT4" and 4 not in profile.weight_bits:
            reason = f"has 4-bit values, which {profile.name} cannot read"
            yield Found(rule=WEIGHT_BITS, tensor=tensor, reason=reason)
    computed = (t for t in (*place.inputs, *place.outputs) if t.constant is None and not t.is_variable)
    foreign = [t for t in computed if t.dtype in QUANTIZED and t.dtype not in profile.activation_types]
    if place.op.code in OF_REAL_NUMBERS and foreign:
        reason = f"is {foreign[0].dtype}, {profile.name} computes in {', '.join(profile.activation_types)}"
        yield Found(rule=ACTIVATION_TYPE, tensor=foreign[0], reason=reason)
    for _, weights, _, _ in weighted(place):
        dense = place.op.code == "FULLY_CONNECTED"
        if len(weights.scale) > 1 and not (profile.per_channel_dense if dense else profile.per_channel_weights):
            what = "per Dense layer" if dense else "per weight"
            reason = f"{len(weights.scale)} scales, {profile.name} takes one {what}"
            yield Found(rule=DENSE_SCALES if dense else WEIGHT_SCALES, tensor=weights, reason=reason)


def _scheme(place: Place) -> Iterator[Found]:
    scheme = place.scheme
    for _, weights, _, _ in weighted(place):
        if scheme is None or weights.constant is None:
            continue
        if len(weights.scale) > 1 and not scheme.per_axis_weights:
            reason = f"{len(weights.scale)} scales, scheme {scheme.name!r} has one per tensor"
            yield Found(rule=SCHEME_SCALES, tensor=weights, reason=reason)
        bits = _BITS.get(weights.dtype)
        # The converter leaves weights as 8-bit integers where an op has no kernel for narrower ones.
        if bits is not None and scheme.integer_only and bits != 8 and bits not in scheme.all_weight_bits:
            reason = f"{weights.dtype} weights, scheme {scheme.name!r} has {scheme.all_weight_bits} bits"
            yield Found(rule=SCHEME_BITS, tensor=weights, reason=reason)
