"""Randomness that can be taken up again: of dropout, of layers that augment, of datasets."""

import contextlib
import random
from collections.abc import Iterator
from typing import Any

import numpy as np
import tensorflow as tf
import tf_keras
from tensorflow.python.eager import context


@contextlib.contextmanager
def saveable_randomness() -> Iterator[None]:
    """Lets random layers that are made meanwhile keep their state in variables.

    By default tf_keras leaves it to the kernels of stateful ops, where nothing can read it: a resumed training would
    begin the sequence of dropout masks again.
    """
    experimental = tf_keras.backend.experimental
    before = experimental.is_tf_random_generator_enabled()
    experimental.enable_tf_random_generator()
    try:
        yield
    finally:
        if not before:
            experimental.disable_tf_random_generator()


@contextlib.contextmanager
def seeded(seed: int) -> Iterator[None]:
    """Seeds what takes no seed of its own meanwhile: Python's, numpy's and TensorFlow's global generators.

    TensorFlow's seed counts the ops of a process otherwise. It is set past tf.random.set_seed, which also throws away
    all compiled functions, those of the training step among them.
    """
    random.seed(seed)
    np.random.seed(seed)
    eager = context.context()
    before = eager._seed, eager._rng
    eager._seed, eager._rng = seed, random.Random(seed)
    try:
        yield
    finally:
        eager._seed, eager._rng = before


def random_states(model: tf_keras.Model) -> list[Any]:
    """Returns the state variables of all generators that layers hold as attributes; empty for most models."""
    states = []
    for layer in model._flatten_layers():
        for value in vars(layer).values():
            # Keras's own wrapper around a generator.
            generator = getattr(value, "_generator", value)
            if isinstance(generator, tf.random.Generator):
                states.append(generator.state)
    return states
