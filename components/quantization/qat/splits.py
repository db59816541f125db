"""The splits that a training reads: checked once, then passed over again and again, in another order each time."""

import dataclasses
import hashlib
import logging
import math
from collections.abc import Callable, Mapping
from typing import Any

import numpy as np
import numpy.typing as npt
import tensorflow as tf
import tf_keras

from components.quantization.qat.random_state import seeded

_LOGGER = logging.getLogger(__name__)

# Returns one pass over a split, as batches of (features by name, label); the argument is the seed of its shuffle,
# None for no shuffle. The same seed must give the same order, or no training can be resumed; any seed as many batches.
DatasetFn = Callable[[int | None], tf.data.Dataset]


@dataclasses.dataclass(frozen=True, kw_only=True, slots=True)
class SplitSummary:
    """What one pass over a split says about it.

    Attributes:
      examples: How many it has.
      batches: How many batches they come in.
      sha256: Hash of all values, in the order of an unshuffled pass.
    """

    examples: int
    batches: int
    sha256: str

    @property
    def batch_examples(self) -> float:
        """Examples of a batch, on average."""
        return self.examples / self.batches


def summarize_split(split: str, dataset_fn: DatasetFn, model: tf_keras.Model) -> SplitSummary:
    """Reads a split once.

    Args:
      split: What errors call it.
      dataset_fn: Gives passes over it.
      model: The compiled model that it has to fit.

    Raises:
      ValueError: If it has no examples, lacks inputs of the model, or has class labels without an output.
    """
    examples, batches, lowest, highest = 0, 0, math.inf, -math.inf
    digest = hashlib.sha256()
    for batch in dataset_fn(None).as_numpy_iterator():
        features, label, *_ = batch
        if not batches:
            _check_features(model, features)
        labels = tf.nest.flatten(label)
        examples += len(labels[0])
        batches += 1
        lowest = min(lowest, *(np.min(values) for values in labels))
        highest = max(highest, *(np.max(values) for values in labels))
        for values in tf.nest.flatten(batch, expand_composites=True):
            digest.update(_bytes_of(np.asarray(values)))
    if not examples:
        raise ValueError(f"the {split} split has no examples; check the input of the ExampleGen")
    classes = _class_count(model)
    if classes is not None and (lowest < 0 or highest >= classes):
        raise ValueError(
            f"labels of the {split} split run from {lowest:g} to {highest:g}, but the model has {classes}"
            f" outputs, for labels 0 to {classes - 1}; build the model with one output per class"
        )
    _LOGGER.info("%s split: %d examples in %d batches", split, examples, batches)
    return SplitSummary(examples=examples, batches=batches, sha256=digest.hexdigest())


class TrainingPasses:
    """Passes over a split, each shuffled by a seed of its own, from any batch of any pass on.

    The order of a pass depends on the seeds only, not on what the process did before; that is why each pass is a
    dataset of its own. tf.data's reshuffling in each iteration would count the iterations of this process.

    Attributes:
      number: Which pass this is, from 0.
      iterator: The rest of it, as a step function takes it.
    """

    def __init__(
        self, dataset_fn: DatasetFn, seeds: tuple[int, ...], strategy: tf.distribute.Strategy, number: int, skip: int
    ) -> None:
        """Opens a pass.

        Args:
          dataset_fn: Gives passes.
          seeds: What the seeds of all passes are made from.
          strategy: Shares batches out to replicas.
          number: The pass to begin with.
          skip: How many of its batches to leave out.
        """
        self._dataset_fn = dataset_fn
        self._seeds = seeds
        self._strategy = strategy
        self._open(number, skip)

    def next_pass(self) -> None:
        """Goes on to the next pass."""
        self._open(self.number + 1, 0)

    def _open(self, number: int, skip: int) -> None:
        seed = int(np.random.SeedSequence((*self._seeds, number)).generate_state(1)[0])
        with seeded(seed):
            dataset = without_autotune(self._dataset_fn(seed))
        if skip:
            dataset = dataset.skip(skip)
        self.number = number
        self.iterator = iter(self._strategy.experimental_distribute_dataset(dataset))


def without_autotune(dataset: tf.data.Dataset) -> tf.data.Dataset:
    """Returns the dataset in a set order, read alike on all workers, and without autotune.

    Autotune stalls the end of short epochs by up to seconds.
    """
    options = tf.data.Options()
    options.autotune.enabled = False
    options.deterministic = True
    # Each worker reads all batches and takes its share of each, so that a step sees the same examples on any number.
    options.experimental_distribute.auto_shard_policy = tf.data.experimental.AutoShardPolicy.DATA
    return dataset.with_options(options)


def _bytes_of(values: npt.NDArray[Any]) -> bytes:
    """Strings are objects in numpy, whose own bytes are addresses."""
    content = repr(values.tolist()).encode() if values.dtype.hasobject else values.tobytes()
    return f"{values.dtype}{values.shape}".encode() + content


def _class_count(model: tf_keras.Model) -> int | None:
    """Number of classes, where the loss says that labels are class indices."""
    sparse = "sparse_categorical_crossentropy"
    loss = model.loss
    name = loss if isinstance(loss, str) else getattr(loss, "name", getattr(loss, "__name__", ""))
    return int(model.output_shape[-1]) if name == sparse and len(model.outputs) == 1 else None


def _check_features(model: tf_keras.Model, features: Mapping[str, Any]) -> None:
    missing = sorted(set(model.input_names) - set(features))
    if missing:
        raise ValueError(
            f"the model's inputs {missing} are no features; there are {sorted(features)}; name the model's inputs after"
            " transformed features"
        )
