"""A float model made ready for quantization-aware training."""

import contextlib
import itertools
import logging
from collections.abc import Iterator
from typing import Any

import numpy as np
import tensorflow as tf
import tf_keras

from components.quantization.autograph import leave_libraries_alone
from components.quantization.qat.fake_quantization import FakeQuantize
from components.quantization.qat.layers import QuantizedWeights
from components.quantization.qat.plan import Policy, plan_of
from components.quantization.qat.quantized_affine import QuantizedAffine
from components.quantization.qat.ranges import Group, Ranges
from components.quantization.schemes import QuantizationScheme, load_scheme
from components.quantization.surgery.graph import Call, Copies, rebuilt
from components.quantization.surgery.prepare import prepare
from components.quantization.surgery.proof import TOLERANCE, UNKNOWN_DIMENSION, difference, require_same_function

_LOGGER = logging.getLogger(__name__)


def quantize_model(
    model: Any, scheme: str | QuantizationScheme = "full_int8", untrainable: Policy = "calibrate"
) -> tf_keras.Model:
    """Returns a copy of the model with fake quantization, ready to be compiled and fine-tuned.

    The copy starts from the model's weights; the model itself is left alone. Its ranges are learned in training:
    fine-tune it for at least one step before converting it.

    Args:
      model: A built Keras model, best already trained: tf_keras or Keras 3, Sequential, functional or subclassed.
      scheme: A scheme or its name.
      untrainable: As in `plan`.

    Raises:
      ValueError: If layers cannot be quantized; names them all, each with its remedy.

    >>> import tf_keras
    >>> model = tf_keras.Sequential([tf_keras.layers.Dense(2, input_shape=(3,), name="dense")])
    >>> [layer.name for layer in quantize_model(model).layers]
    ['dense_input', 'dense_input_range', 'dense_values', 'dense']
    """
    leave_libraries_alone()
    scheme = load_scheme(scheme)
    if not scheme.trained:
        raise ValueError(
            f"scheme {scheme.name!r} is not trained: it is applied when a float model is converted; convert the model"
            " with it, or choose a scheme of integers"
        )
    prepared = prepare(model)
    ranges = Ranges(prepared.model, scheme)
    plan_of(prepared, ranges, scheme, None, untrainable).require_no_blockers(prepared.model.name)
    quantized = _Quantization(prepared.model, ranges, scheme).model()
    switch(quantized, quantizing=False)
    require_same_function(prepared.model, quantized, "insert fake quantization")
    _require_same_folds(quantized)
    switch(quantized, quantizing=True)
    return quantized


def _require_same_folds(model: tf_keras.Model) -> None:
    """Checks each layer with a folded normalization by itself: errors of rounding don't add up along the model."""
    generator = np.random.default_rng(1)
    wrong = []
    for layer in model.layers:
        if getattr(layer, "normalization", None) is None:
            continue
        inputs, *_ = tf.nest.flatten(layer.get_input_at(0))
        shape = [size or UNKNOWN_DIMENSION for size in inputs.shape[1:]]
        inputs = tf.constant(generator.normal(size=[1, *shape]), tf.float32)
        found = difference(layer(inputs, training=False), layer.folded(inputs))
        if found > TOLERANCE:
            wrong.append(f"{layer.name} (by {found:.2g} of the range of its output)")
    if wrong:
        raise ValueError(
            f"model {model.name!r}: folding the normalization would change what these layers compute by more than"
            f" {TOLERANCE:g}: {', '.join(wrong)}; look for variances near 0"
        )


def switch(model: tf_keras.Model, quantizing: bool) -> None:
    """Turns fake quantization on or off, for calls outside a tf.function; off, the model computes in floats."""
    for layer in model.layers:
        if isinstance(layer, FakeQuantize | QuantizedAffine | QuantizedWeights):
            layer.quantizing = quantizing


@contextlib.contextmanager
def in_floats(model: tf_keras.Model, activations_alone: bool = False) -> Iterator[None]:
    """Turns fake quantization off for a while, of weights and activations or of these alone, as `switch` does."""
    kinds = FakeQuantize if activations_alone else FakeQuantize | QuantizedAffine | QuantizedWeights
    layers = [layer for layer in model.layers if isinstance(layer, kinds) and layer.quantizing]
    for layer in layers:
        layer.quantizing = False
    try:
        yield
    finally:
        for layer in layers:
            layer.quantizing = True


class _Quantization:
    """One rebuilding of a prepared model with fake quantization."""

    def __init__(self, model: tf_keras.Model, ranges: Ranges, scheme: QuantizationScheme) -> None:
        self._model = model
        self._ranges = ranges
        self._scheme = scheme
        self._copies = Copies()
        self._wrapped: dict[int, Any] = {}
        self._quantizers: dict[int, FakeQuantize] = {}
        self._uses: dict[str, int] = {}
        self._steps: dict[int, Any] = {}
        self._indices = itertools.count()
        self._output_names = dict(zip(map(id, model.outputs), model.output_names, strict=True))
        # What quantizes an output has its name, by which a loaded model finds it; a layer of that name gets another.
        self._taken = {
            self._output_names[id(tensor)]
            for index, call in enumerate(ranges.calls)
            for tensor in call.outputs
            if id(tensor) in self._output_names and self._is_quantized(index, tensor)
        }

    def model(self) -> tf_keras.Model:
        """Returns the quantized model."""
        quantized = rebuilt(self._model, self._call, self._input)
        self._copies.copy_weights()
        return quantized

    def _input(self, old: Any, new: Any) -> Any:
        group = self._ranges.group(old)
        return new if group is None else self._quantized(group, old, new)

    def _quantized(self, group: Group, old: Any, raw: Any) -> Any:
        """The values of a tensor that has a range, as those who take it find them."""
        return self._quantizer(group)(
            raw,
            observe=id(old) in group.watched,
            wide=self._ranges.is_wide(old),
            is_output=self._ranges.is_shown(old),
        )

    def _call(self, call: Call, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
        index = next(self._indices)
        if self._ranges.folded_into(index) is not None:
            outputs = args[0]  # computed by the layer that it is folded into
        else:
            args, kwargs = self._narrowed(index, call, args, kwargs)
            layer = self._layer(index, call)
            if isinstance(
                layer, QuantizedWeights | QuantizedAffine
            ):  # Keras 3 records what nobody gave, such as a mask
                kwargs = {name: value for name, value in kwargs.items() if value is not None}
                kwargs |= self._input_step(index, call, layer, args)
            outputs = layer(*args, **kwargs, **self._fixed_training(index))
        new = []
        for old, value in zip(call.outputs, tf.nest.flatten(outputs), strict=True):
            group = self._ranges.group(old)
            if group is not None and self._is_quantized(index, old):
                value = self._quantized(group, old, value)
            new.append(value)
        return tf.nest.pack_sequence_as(outputs, new)

    def _input_step(self, index: int, call: Call, layer: Any, args: tuple[Any, ...]) -> dict[str, Any]:
        """What the layer rounds its bias with, if it has one and its input a range that the converter takes over."""
        before = self._ranges.preprocessing.get(index)
        group = self._ranges.group((call if before is None else self._ranges.calls[before]).inputs[0])
        has_bias = layer.normalization is not None or getattr(layer.layer, "use_bias", False) or before is not None
        if group is None or not has_bias or self._scheme.activation_bits != 8:
            return {}
        if id(group) not in self._steps:
            self._steps[id(group)] = self._quantizer(group)(args[0], observe=False, step=True)
        return {"input_step": self._steps[id(group)]}

    def _fixed_training(self, index: int) -> dict[str, Any]:
        """A mode that the model fixes for the normalization that is folded in, such as that of a frozen base model."""
        folded = self._ranges.folds.get(index)
        if folded is None:
            return {}
        call = self._ranges.calls[folded]
        training = call.kwargs.get("training", call.args[1] if len(call.args) > 1 else None)
        return {} if training is None else {"training": training}

    def _is_quantized(self, index: int, tensor: Any) -> bool:
        """Whether the output of a call passes its group's quantizer, and not its values as they are."""
        group, kind = self._ranges.group(tensor), self._ranges.rules[index].kind
        if group is None or kind == "nothing":
            return False
        return kind != "same" or id(tensor) in group.watched

    def _narrowed(self, index: int, call: Call, args: Any, kwargs: Any) -> tuple[Any, Any]:
        """Brings inputs of 16 bits to 8, for a call that takes no others."""
        replaced = {}
        flat = tf.nest.flatten((call.args, call.kwargs))
        new = tf.nest.flatten((args, kwargs))
        for old, value in zip(flat, new, strict=True):
            group = self._ranges.group(old)
            if group is not None and self._ranges.is_wide(old) and index not in self._ranges.wide:
                # The converter gets both with 8 bits and the same range, and drops one.
                replaced[id(value)] = self._quantizer(group)(value, observe=False)
        if not replaced:
            return args, kwargs
        result: tuple[Any, Any] = tf.nest.map_structure(lambda leaf: replaced.get(id(leaf), leaf), (args, kwargs))
        return result

    def _layer(self, index: int, call: Call) -> Any:
        layer, kind = call.layer, self._ranges.rules[index].kind
        if kind not in ("weights", "affine"):
            return self._copies.of(layer, {"name": self._name(layer)})
        if id(layer) in self._wrapped:
            return self._wrapped[id(layer)]
        options: dict[str, Any] = {
            "bits": self._scheme.weight_bits_of(layer.name),
            "per_axis": self._scheme.per_axis_weights,
            "name": self._name(layer),
        }
        if kind == "affine":
            wrapper = QuantizedAffine(self._copies.of(layer), **options)
        else:
            folded = self._ranges.folds.get(index)
            normalization = None if folded is None else self._copies.of(self._ranges.calls[folded].layer)
            before = self._ranges.preprocessing.get(index)
            preprocessing = None if before is None else self._ranges.calls[before].layer.get_weights()
            wrapper = QuantizedWeights(self._copies.of(layer), normalization, preprocessing=preprocessing, **options)
        self._wrapped[id(layer)] = wrapper
        return wrapper

    def _name(self, layer: Any) -> str:
        return f"{layer.name}_values" if layer.name in self._taken else str(layer.name)

    def _quantizer(self, group: Group) -> FakeQuantize:
        if id(group) not in self._quantizers:
            outputs = (self._output_names[id(t)] for t in self._model.outputs if self._ranges.group(t) is group)
            name = next((name for name in outputs if name in self._taken), None)
            if name is None:  # a layer that is called several times makes several ranges
                uses = self._uses[group.name] = self._uses.get(group.name, 0) + 1
                name = f"{group.name}_range" if uses == 1 else f"{group.name}_range_{uses}"
            self._quantizers[id(group)] = FakeQuantize(
                bits=self._scheme.activation_bits,
                fixed=group.fixed,
                monotone=len(group.watched) > 1,
                nonnegative=self._ranges.is_nonnegative(group),
                name=name,
            )
        return self._quantizers[id(group)]
