import numpy as np
import pytest
import tf_keras

from components.quantization import convert
from components.quantization.conversion import flatbuffer
from components.quantization.macs import macs

layers = tf_keras.layers


@pytest.mark.parametrize(
    ("shape", "layer", "expected"),
    [
        ((8, 8, 3), layers.Conv2D(4, 3), 6 * 6 * 4 * 27),
        ((8, 8, 3), layers.DepthwiseConv2D(3), 6 * 6 * 3 * 9),
        ((4, 4, 2), layers.Conv2DTranspose(3, 3), 4 * 4 * 2 * 9 * 3),
        ((5,), layers.Dense(7), 35),
        ((4, 4, 1), layers.MaxPool2D(), 0),
        ((5, 3), layers.LSTM(2), 5 * 4 * (2 * 3 + 2 * 2)),
        ((5, 3), layers.Lambda(lambda x: x @ (x[:, :3] * 0.5)), 5 * 3 * 3),
    ],
)
def test_macs_by_hand(shape: tuple[int, ...], layer: tf_keras.layers.Layer, expected: int) -> None:
    model = tf_keras.Sequential([layers.InputLayer(shape, name="x"), layer])
    examples = [np.random.default_rng(1).normal(size=(4, *shape)).astype(np.float32)]
    graph = flatbuffer.read_subgraphs(convert(model, representative_dataset=examples, profile="cpu"))[0]
    assert sum(macs(op, graph) for op in graph.ops) == expected
