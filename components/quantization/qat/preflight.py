"""The integer model that a float model would become, before anyone has trained it: its ops are the real ones."""

import collections
import contextlib
import dataclasses
import random
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any

import numpy as np
import numpy.typing as npt
import tf_keras
from tensorflow.python.eager import context
from tf_keras.src import backend

from components.quantization.conversion.convert import convert
from components.quantization.conversion.io_dtypes import IoDtype
from components.quantization.conversion.profiles import ConversionProfile
from components.quantization.qat.calibration import model_inputs
from components.quantization.qat.fake_quantization import FakeQuantize
from components.quantization.qat.plan import Policy
from components.quantization.qat.quantize import quantize_model
from components.quantization.schemes import QuantizationScheme, load_scheme
from components.quantization.surgery.prepare import prepare
from components.quantization.surgery.proof import random_inputs

_BATCHES = 2
_EXAMPLES = 8
_ANY_RANGE = (-1.0, 1.0)
_ANY_WEIGHT = 0.1  # standard deviation


@dataclasses.dataclass(frozen=True, kw_only=True, slots=True)
class PlannedConversion:
    """One conversion that a model in training is meant for.

    Attributes:
      profile: Name of the target.
      io_dtype: Type of inputs and outputs, of all or by name; None for the scheme's usual one.
      hold: Looks at an integer model, given with when it was made, and raises ValueError if the target has no use for
        it; None for nobody.
      gated: Whether `hold` may refuse a model, so that it is worth to ask again during the training.
    """

    profile: str
    io_dtype: IoDtype = None
    hold: Callable[[bytes, str], None] | None = None
    gated: bool = False


def preflight(
    model: Any,
    scheme: str | QuantizationScheme = "full_int8",
    profile: str | ConversionProfile = "edge_tpu",
    untrainable: Policy = "calibrate",
    io_dtype: IoDtype = None,
    examples: Sequence[Mapping[str, Any]] = (),
) -> bytes:
    """Quantizes a copy of the model and converts it without training, its ranges those of some inputs.

    The ops, types and shapes are those that the trained model will have; its numbers mean nothing.

    Args:
      model: A built Keras model: tf_keras or Keras 3, Sequential, functional or subclassed. It is left alone.
      scheme: A scheme or its name.
      profile: The target, by name, that it is converted for.
      untrainable: As in `plan`.
      io_dtype: Type of inputs and outputs, of all or by name; None for the scheme's usual one.
      examples: Batches of features by name, of which a few examples each are used; random inputs if there are none.

    Returns:
      A TFLite flatbuffer.

    Raises:
      ValueError: If layers cannot be quantized, or the converter or its audit refuses the model.

    >>> import tf_keras
    >>> preflight(tf_keras.Sequential([tf_keras.layers.Dense(2, input_shape=(3,))]))[4:8]
    b'TFL3'
    """
    scheme = load_scheme(scheme)
    if not scheme.trained:
        converted = prepare(model).model
        return convert(converted, scheme, profile=profile, io_dtype=io_dtype)
    converted = quantize_model(model, scheme, untrainable)
    names = converted.input_names
    batches = [{name: batch[name][:_EXAMPLES] for name in names} for batch in examples]
    if not batches:
        batches = [dict(zip(names, random_inputs(converted, seed), strict=True)) for seed in range(_BATCHES)]
    _fill(converted)
    _observe(converted, batches)
    return convert(converted, scheme, batches, profile, io_dtype)


@contextlib.contextmanager
def undisturbed() -> Iterator[None]:
    """Leaves random numbers and the names of layers to come as if nothing had been done meanwhile."""
    eager = context.context()
    generators = [
        generator for generator in (getattr(eager, "_rng", None), _keras_generator()) if generator is not None
    ]
    before = random.getstate(), np.random.get_state(), [generator.getstate() for generator in generators]
    names = {graph: dict(uids) for graph, uids in backend.PER_GRAPH_OBJECT_NAME_UIDS.items()}
    observed = set(backend.OBSERVED_NAMES)
    try:
        yield
    finally:
        random.setstate(before[0])
        np.random.set_state(before[1])
        for generator, state in zip(generators, before[2], strict=True):
            generator.setstate(state)
        tf_keras.backend.reset_uids()
        backend.OBSERVED_NAMES |= observed
        for graph, uids in names.items():
            backend.PER_GRAPH_OBJECT_NAME_UIDS[graph] = collections.defaultdict(int, uids)


def _keras_generator() -> Any:
    """What tf_keras draws the seeds of its layers from; None if there is none in this thread yet."""
    return getattr(backend._SEED_GENERATOR, "generator", None)


def _fill(model: tf_keras.Model) -> None:
    """Gives weights that start at 0 other values: all behind them would be 0, and have no range."""
    generator = np.random.default_rng(1)
    for variable in model.trainable_variables:
        if not np.any(variable.numpy()):
            variable.assign(generator.normal(scale=_ANY_WEIGHT, size=variable.shape))


def _observe(model: tf_keras.Model, batches: Sequence[Mapping[str, npt.NDArray[Any]]]) -> None:
    """Gives every FakeQuantize of a quantized model a range; moves no weights but moving averages."""
    for batch in batches:
        model(model_inputs(model, batch), training=True)
    for layer in model.layers:
        # Without training some tensors are all 0, such as those behind a weight that starts at 0.
        if isinstance(layer, FakeQuantize) and not _is_range(layer):
            layer.set_range(*_ANY_RANGE)


def _is_range(layer: FakeQuantize) -> bool:
    return layer.observed and bool(np.isfinite([float(layer.minimum), float(layer.maximum)]).all())
