"""Fake quantization of activations: a range learned in training, on the grid that the integer model will use."""

from typing import Any

import tensorflow as tf
import tf_keras

from components.quantization.conversion.int16_ranges import MAXIMUM_NAME, MINIMUM_NAME

# A moving average over about a hundred steps. With tfmot's 0.999 a third of the start is there after a thousand.
_MOMENTUM = 0.99


@tf_keras.saving.register_keras_serializable("tfx_qat")
class FakeQuantize(tf_keras.layers.Layer):  # type: ignore[misc]  # tf_keras has no types
    """Rounds and clips a tensor to the integers of its range, and gives back the real values that they stand for.

    The range is a moving average of the batches' minimum and maximum, starting with the first batch's. Gradients pass
    where values are within the range; everywhere if it is a prescribed one, which softmax and sigmoid never leave.

    Attributes:
      minimum: The range's lower end, float32 scalar, never above 0.
      maximum: Its upper end, never below 0. Both are 0 until a training step or `set_range`.
      observing: 1.0 while training moves the range, 0.0 when frozen.
      quantizing: Whether it rounds; off where float values are asked for, as in the proof that all else is as in the
        float model.
      calibrating: Whether the range widens to whatever is seen at inference; see `calibration.calibrate`.
    """

    def __init__(
        self,
        bits: int = 8,
        fixed: tuple[float, float] | None = None,
        monotone: bool = False,
        nonnegative: bool = False,
        **kwargs: Any,
    ) -> None:
        """Sets up the quantizer.

        Args:
          bits: Width of the integers, 8 or 16.
          fixed: A range that the kernels of the integer op prescribe, and that training does not move.
          monotone: The range never shrinks; for a range that several tensors share and that each of them observes.
          nonnegative: All values are 0 or more, so that nobody need look for the smallest in each step.
          **kwargs: Those of a Keras layer.
        """
        super().__init__(**kwargs)
        self.supports_masking = True
        self.bits = bits
        self.fixed = tuple(fixed) if fixed else None
        self.monotone = monotone
        self.nonnegative = nonnegative
        self.quantizing = True
        self.calibrating = False

    def build(self, input_shape: Any) -> None:
        """Makes the three scalars."""
        minimum, maximum = self.fixed or (0.0, 0.0)

        def scalar(name: str, value: float) -> Any:
            return self.add_weight(
                name,
                shape=(),
                initializer=tf_keras.initializers.Constant(value),
                trainable=False,
                # Replicas that see different batches keep one range, the mean of theirs.
                aggregation=tf.VariableAggregation.MEAN,
            )

        self.minimum = scalar("minimum", minimum)
        self.maximum = scalar("maximum", maximum)
        self.observing = scalar("observing", 0.0 if self.fixed else 1.0)
        super().build(input_shape)

    @property
    def observed(self) -> bool:
        """Whether the range is known."""
        return float(self.maximum) > float(self.minimum)

    def set_range(self, minimum: float, maximum: float) -> None:
        """Sets the range, widened so that it contains 0."""
        self.minimum.assign(min(float(minimum), 0.0))
        self.maximum.assign(max(float(maximum), 0.0))

    def freeze(self) -> None:
        """Keeps training from moving the range any more."""
        self.observing.assign(0.0)

    def call(
        self,
        inputs: tf.Tensor,
        observe: bool = True,
        step: bool = False,
        wide: bool = False,
        is_output: bool = False,
        training: bool | None = None,
    ) -> tf.Tensor:
        """Fake-quantizes.

        Args:
          inputs: A float32 tensor.
          observe: Whether the range follows this tensor; if not, it follows others and only applies here.
          wide: Round to 16 bits instead of 8, as `conversion.int16_layers` will.
          is_output: Whether the tensor is an output of the model. In training, one of a prescribed range stays as it
            is: rounded to 0, a probability would teach nothing, and Keras's losses look for the logits behind it.
          step: Return the real value of one step of the integers instead, a scalar; 0 for an unknown range.
          training: Whether this is a training step.
        """
        if step:
            return (self.maximum - self.minimum) / float(2**self.bits - 1)
        if self.calibrating and self.fixed is None and observe:
            self.minimum.assign(tf.minimum(self.minimum, tf.reduce_min(inputs)))
            self.maximum.assign(tf.maximum(self.maximum, tf.reduce_max(inputs)))
        if not self.quantizing:
            return inputs
        if self.fixed is not None and training:
            rounded = self._rounded(inputs, self.minimum, self.maximum, wide)
            return inputs if is_output else inputs + tf.stop_gradient(rounded - inputs)
        minimum, maximum = self.minimum, self.maximum
        if training:
            minimum, maximum = self._observed_range(inputs) if observe else self._widened_range(inputs)
        return self._rounded(inputs, minimum, maximum, wide)

    def _rounded(self, inputs: tf.Tensor, minimum: tf.Tensor, maximum: tf.Tensor, wide: bool) -> tf.Tensor:
        if wide:
            return _wide(inputs, minimum, maximum, self.fixed is not None)
        if self.bits == 16:  # symmetric, as TFLite's 16-bit kernels ask
            maximum = tf.maximum(-minimum, maximum)
            minimum = -maximum
        return tf.quantization.fake_quant_with_min_max_vars(
            inputs, minimum, maximum, num_bits=self.bits, narrow_range=self.bits == 16
        )

    def _observed_range(self, inputs: tf.Tensor) -> tuple[tf.Tensor, tf.Tensor]:
        """Moves the range towards that of this batch; without branches, which replicas could not synchronize in."""
        first = tf.cast(tf.equal(self.minimum, self.maximum), tf.float32)
        rate = self.observing * tf.maximum(first, 1.0 - _MOMENTUM)
        moved = []
        for variable, extreme, reduce in (
            (self.minimum, tf.minimum, tf.reduce_min),
            (self.maximum, tf.maximum, tf.reduce_max),
        ):
            if self.nonnegative and variable is self.minimum:
                moved.append(tf.convert_to_tensor(variable))
                continue
            seen = extreme(tf.stop_gradient(reduce(inputs)), 0.0)
            if self.monotone:
                seen = extreme(seen, variable)
                value = variable + self.observing * (seen - variable)
            else:
                value = variable + rate * (seen - variable)
            variable.assign(value)
            moved.append(value)
        return moved[0], moved[1]

    def _widened_range(self, inputs: tf.Tensor) -> tuple[tf.Tensor, tf.Tensor]:
        """The range, widened by this batch's values while it is learned.

        Clipped, they would reach the concatenation or padding that observes them within the range that there is, which
        could then never grow.
        """
        widened = []
        for variable, extreme, reduce in (
            (self.minimum, tf.minimum, tf.reduce_min),
            (self.maximum, tf.maximum, tf.reduce_max),
        ):
            seen = extreme(tf.stop_gradient(reduce(inputs)), variable)
            widened.append(variable + self.observing * (seen - variable))
        return widened[0], widened[1]

    def get_config(self) -> dict[str, Any]:
        """Returns what the constructor takes."""
        own = {"bits": self.bits, "fixed": self.fixed, "monotone": self.monotone, "nonnegative": self.nonnegative}
        return {**super().get_config(), **own}


def _wide(inputs: tf.Tensor, minimum: tf.Tensor, maximum: tf.Tensor, fixed: bool) -> tf.Tensor:
    """Rounds to the symmetric 16 bits that a tensor has instead of the 8 bits of a range.

    The names are those by which conversion finds the 8-bit range.
    """
    low, high = tf.identity(minimum, MINIMUM_NAME), tf.identity(maximum, MAXIMUM_NAME)
    if fixed:
        low, high = tf.minimum(low, -1.0), tf.maximum(high, 1.0 - 2.0**-15)
        return tf.quantization.fake_quant_with_min_max_vars(inputs, low, high, num_bits=16)
    step = tf.maximum(high - low, 1e-30) / 255.0
    below = tf.clip_by_value(tf.round(-low / step), 0.0, 255.0)
    largest = step * tf.maximum(below, 255.0 - below)
    return tf.quantization.fake_quant_with_min_max_vars(inputs, -largest, largest, num_bits=16, narrow_range=True)
