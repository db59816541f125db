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

from components.quantization.qat.distribution import reaches_all
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
      batches: How many batches can be shared out to all replicas.
      left_out: How many batches are too small for that.
      sha256: Hash of all values, in the order of an unshuffled pass.
    """

    examples: int
    batches: int
    sha256: str
    left_out: int = 0

    @property
    def batch_examples(self) -> float:
        """Examples of a batch, on average."""
        return self.examples / (self.batches + self.left_out)


def summarize_split(split: str, dataset_fn: DatasetFn, model: tf_keras.Model, replicas: int = 1) -> SplitSummary:
    """Reads a split once.

    Args:
      split: What errors call it.
      dataset_fn: Gives passes over it.
      model: The compiled model that it has to fit.
      replicas: How many share each batch; batches that do not reach all of them are not counted.

    Raises:
      ValueError: If it has no examples, or too few to be shared out, lacks inputs of the model, or has class labels
        without an output.
    """
    examples, batches, left_out, lowest, highest = 0, 0, 0, math.inf, -math.inf
    digest = hashlib.sha256()
    for batch in dataset_fn(None).as_numpy_iterator():
        features, label, *_ = batch
        if not examples:
            _check_features(model, features)
        labels = tf.nest.flatten(label)
        examples += len(labels[0])
        if reaches_all(len(labels[0]), replicas):
            batches += 1
        else:
            left_out += 1
        lowest = min(lowest, *(np.min(values) for values in labels))
        highest = max(highest, *(np.max(values) for values in labels))
        for values in tf.nest.flatten(batch, expand_composites=True):
            digest.update(_bytes_of(np.asarray(values)))
    if not examples:
        raise ValueError(f"the {split} split has no examples; check the input of the ExampleGen")
    if not batches:
        raise ValueError(
            f"the {split} split has no batch that {replicas} replicas can share; got {examples} examples, expected more"
        )
    classes = _class_count(model)
    if classes is not None and (lowest < 0 or highest >= classes):
        raise ValueError(
            f"labels of the {split} split run from {lowest:g} to {highest:g}, but the model has {classes}"
            f" outputs, for labels 0 to {classes - 1}; build the model with one output per class"
        )
    _LOGGER.info("%s split: %d examples in %d batches", split, examples, batches + left_out)
    if left_out:
        every = batches + left_out
        _LOGGER.info("%s split: left out %d of %d batches, too small for %d replicas", split, left_out, every, replicas)
    return SplitSummary(examples=examples, batches=batches, sha256=digest.hexdigest(), left_out=left_out)


def dense_features(features: Mapping[str, Any]) -> dict[str, npt.NDArray[Any]]:
    """Returns the features of a batch that are arrays."""
    return {name: values for name, values in features.items() if hasattr(values, "shape")}


def sample_batches(
    dataset_fn: DatasetFn, examples: int, count: int, batch_size: int, seed: int
) -> list[dict[str, npt.NDArray[Any]]]:
    """Draws examples from all over a split, in the order in which it has them.

    Args:
      dataset_fn: Gives passes over it.
      examples: How many it has.
      count: How many to draw; all, if there are not as many.
      batch_size: Examples of a batch of the result.
      seed: Decides which.

    Returns:
      Features by name, in batches.
    """
    chosen = np.sort(np.random.default_rng(seed).permutation(examples)[:count])
    rows: dict[str, list[npt.NDArray[Any]]] = {}
    start = 0
    for features, *_ in dataset_fn(None).as_numpy_iterator():
        arrays = dense_features(features)
        end = start + len(next(iter(arrays.values())))
        kept = chosen[(chosen >= start) & (chosen < end)] - start
        for name, values in arrays.items():
            rows.setdefault(name, []).append(values[kept])
        start = end
        if start > chosen[-1]:
            break
    joined = {name: np.concatenate(parts) for name, parts in rows.items()}
    return [
        {name: values[first : first + batch_size] for name, values in joined.items()}
        for first in range(0, len(chosen), batch_size)
    ]


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
        dataset = without_small_batches(dataset, self._strategy)
        if skip:
            dataset = dataset.skip(skip)
        self.number = number
        self.iterator = iter(self._strategy.experimental_distribute_dataset(dataset))


def without_small_batches(dataset: tf.data.Dataset, strategy: tf.distribute.Strategy) -> tf.data.Dataset:
    """Returns the batches that can be shared out to all replicas of a strategy."""
    replicas = strategy.num_replicas_in_sync
    if replicas == 1:
        return dataset
    return dataset.filter(lambda *batch: reaches_all(_length(batch), replicas))


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


def _length(batch: tuple[Any, ...]) -> tf.Tensor:
    return tf.shape(tf.nest.flatten(batch[1])[0])[0]


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
