"""Fine-tuning of several models on exactly the same batches."""

import time
from collections.abc import Iterator
from typing import Any

import click
import numpy as np
import numpy.typing as npt

_SECONDS_BETWEEN_LINES = 15.0


def batches(count: int, batch_size: int, epochs: int, seed: int) -> Iterator[npt.NDArray[np.int64]]:
    """Yields the indices of one batch after another, each epoch in another order.

    Args:
      count: How many examples there are.
      batch_size: Examples of a batch; the last of an epoch has what is left.
      epochs: How many epochs.
      seed: Decides the order, and nothing else does.
    """
    generator = np.random.default_rng(seed)
    for _ in range(epochs):
        order = generator.permutation(count)
        yield from (order[start : start + batch_size] for start in range(0, count, batch_size))


def fine_tune(
    model: Any,
    images: npt.NDArray[Any],
    labels: npt.NDArray[Any],
    order: Iterator[npt.NDArray[np.int64]],
    *,
    learning_rate: float = 1e-4,
    what: str = "",
) -> None:
    """Trains with Adam, on the batches in their order.

    Args:
      model: A tf_keras model with class probabilities as its output.
      images: Its inputs, of any type that converts to float32.
      labels: Classes, (examples,).
      order: The indices of the batches.
      learning_rate: That of Adam.
      what: What is trained, for lines of progress; empty for no such lines.
    """
    import tf_keras

    model.compile(tf_keras.optimizers.Adam(learning_rate), "sparse_categorical_crossentropy")
    listed = list(order)
    started = said = time.monotonic()
    for step, batch in enumerate(listed, 1):
        loss = model.train_on_batch(images[batch].astype(np.float32), labels[batch])
        now = time.monotonic()
        if what and (now - said > _SECONDS_BETWEEN_LINES or step == len(listed)):
            said, seconds = now, (now - started) / step
            left = f"{seconds * (len(listed) - step):.0f} s left"
            click.echo(f"{what}: step {step} of {len(listed)}, loss {loss:.3f}, {seconds * 1e3:.0f} ms a step, {left}")
