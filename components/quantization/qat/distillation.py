"""Distillation: fine-tuning that also draws the outputs towards those of the float model."""

import functools
import logging
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import tensorflow as tf
import tf_keras

_LOGGER = logging.getLogger(__name__)

# As in Keras's own cross entropies: no logarithm of 0, which fake quantization makes of small probabilities.
_SMALLEST = 1e-7

# The mean distance of a batch of the student's outputs from the teacher's, (student, teacher) -> scalar.
Distance = Callable[[tf.Tensor, tf.Tensor], tf.Tensor]


class DistilledModel(tf_keras.Model):  # type: ignore[misc]
    """A student with another training step; its layers and variables are the student's own.

    Made for training only: the student is what is exported. Evaluation is as the student's: its loss has no share of
    the teacher. Sample weights apply to the student's own loss, not to the distance from the teacher.
    """

    def __init__(
        self, student: tf_keras.Model, teacher: tf_keras.Model, weight: float, temperature: float, loss: Any
    ) -> None:
        """Wraps the student; compile it as the student is.

        Args:
          student: A functional model.
          teacher: A model with the same inputs and outputs; not trained.
          weight: Share of the distance in the loss, 0..1.
          temperature: Of class probabilities.
          loss: The student's loss, as given to compile; it tells logits from other values.
        """
        super().__init__(student.inputs, student.outputs, name=student.name)
        # In functions, for Keras would make an attribute's variables this model's own.
        self._teacher_outputs = functools.partial(_frozen_outputs, lambda: teacher)
        self._distances = _distances(teacher, student.output_names, loss, temperature)
        self._weight = weight

    def train_step(self, data: Any) -> dict[str, tf.Tensor]:
        """One step on (features, labels) or (features, labels, sample weights); returns the compiled metrics."""
        features, labels, weights = tf_keras.utils.unpack_x_y_sample_weight(data)
        with tf.GradientTape() as tape:
            outputs = self(features, training=True)
            own = self.compute_loss(features, labels, outputs, weights)
            other = self._distance(features, outputs) + tf.add_n(self.losses or [0.0])
            # Gradients of replicas are added up; Keras's loss is already divided.
            other /= tf.distribute.get_strategy().num_replicas_in_sync
            loss = (1.0 - self._weight) * own + self._weight * other
        self.optimizer.minimize(loss, self.trainable_variables, tape=tape)
        metrics: dict[str, tf.Tensor] = self.compute_metrics(features, labels, outputs, weights)
        return metrics

    def _distance(self, features: Any, outputs: Any) -> tf.Tensor:
        pairs = zip(tf.nest.flatten(outputs), tf.nest.flatten(self._teacher_outputs(features)), strict=True)
        return tf.add_n([measure(*pair) for measure, pair in zip(self._distances, pairs, strict=True)])


def _frozen_outputs(teacher: Callable[[], tf_keras.Model], features: Any) -> Any:
    return tf.nest.map_structure(tf.stop_gradient, teacher()(features, training=False))


def _distances(teacher: tf_keras.Model, names: Sequence[str], loss: Any, temperature: float) -> tuple[Distance, ...]:
    """The distance that suits each output."""
    found = []
    for index, name in enumerate(names):
        kind = _kind(_activation(teacher, name), _loss_of(loss, index, name))
        _LOGGER.info("distillation: output %s, %s", name, _DISTANCES[kind][0])
        found.append(functools.partial(_DISTANCES[kind][1], temperature))
    return tuple(found)


def _activation(model: tf_keras.Model, output: str) -> str:
    """Name of the activation that an output comes from; empty where the model does not tell."""
    layer = next((layer for layer in model.layers if layer.name == output), None)
    if isinstance(layer, tf_keras.Model) and len(getattr(layer, "output_names", None) or ()) == 1:
        return _activation(layer, layer.output_names[0])
    if isinstance(layer, tf_keras.layers.Softmax):
        return "softmax"
    return getattr(getattr(layer, "activation", None), "__name__", "")


def _loss_of(loss: Any, index: int, name: str) -> Any:
    if isinstance(loss, Mapping):
        return loss.get(name)
    return loss[index] if isinstance(loss, Sequence) and not isinstance(loss, str) else loss


def _kind(activation: str, loss: Any) -> str:
    """What an output is: a key of _DISTANCES."""
    settings = loss.get_config() if isinstance(loss, tf_keras.losses.Loss) else {}
    name = str(loss if isinstance(loss, str) else getattr(loss, "name", getattr(loss, "__name__", "")))
    if settings.get("from_logits"):
        return "binary logits" if "binary" in name else "logits"
    if activation in ("softmax", "sigmoid"):
        return activation
    if "crossentropy" not in name:
        return "values"
    return "sigmoid" if "binary" in name else "softmax"


def _classes_apart(temperature: float, student: tf.Tensor, teacher: tf.Tensor) -> tf.Tensor:
    """Kullback-Leibler divergence of softened class probabilities from logits.

    Times the square of the temperature, which makes up for its effect on gradients: https://arxiv.org/abs/1503.02531.
    """
    student, teacher = (tf.nn.log_softmax(logits / temperature) for logits in (student, teacher))
    return temperature**2 * tf.reduce_mean(tf.reduce_sum(tf.exp(teacher) * (teacher - student), axis=-1))


def _bits_apart(temperature: float, student: tf.Tensor, teacher: tf.Tensor) -> tf.Tensor:
    """The same for logits of independent yes-or-no outputs."""
    student, teacher = student / temperature, teacher / temperature
    expected = tf.sigmoid(teacher)
    cross, own = (
        tf.nn.sigmoid_cross_entropy_with_logits(labels=expected, logits=logits) for logits in (student, teacher)
    )
    return temperature**2 * tf.reduce_mean(cross - own)


def _probabilities_apart(temperature: float, student: tf.Tensor, teacher: tf.Tensor) -> tf.Tensor:
    student, teacher = (tf.math.log(tf.maximum(values, _SMALLEST)) for values in (student, teacher))
    return _classes_apart(temperature, student, teacher)


def _chances_apart(temperature: float, student: tf.Tensor, teacher: tf.Tensor) -> tf.Tensor:
    def logits(chances: tf.Tensor) -> tf.Tensor:
        chances = tf.clip_by_value(chances, _SMALLEST, 1.0 - _SMALLEST)
        return tf.math.log(chances) - tf.math.log1p(-chances)

    return _bits_apart(temperature, logits(student), logits(teacher))


def _values_apart(temperature: float, student: tf.Tensor, teacher: tf.Tensor) -> tf.Tensor:
    del temperature
    return tf.reduce_mean(tf.math.squared_difference(student, teacher))


_DISTANCES = {
    "softmax": ("Kullback-Leibler divergence of class probabilities", _probabilities_apart),
    "sigmoid": ("Kullback-Leibler divergence of yes-or-no probabilities", _chances_apart),
    "logits": ("Kullback-Leibler divergence of class logits", _classes_apart),
    "binary logits": ("Kullback-Leibler divergence of yes-or-no logits", _bits_apart),
    "values": ("mean squared difference", _values_apart),
}
