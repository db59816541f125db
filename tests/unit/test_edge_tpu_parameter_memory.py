"""Bytes of parameters on the chip and off it, by the padding for 16 tiles."""

import pytest

from components.targets.edge_tpu import mapping
from components.targets.edge_tpu.parameter_memory import ParameterMemory, parameter_memory

from edge_tpu_graphs import Net, unary


def _dense(inputs: int, outputs: int, bias: bool = True) -> bytes:
    net = Net()
    operands = [net.tensor(1, inputs), net.tensor(outputs, inputs, values=1)]
    operands.append(net.tensor(outputs, dtype="INT32", values=0) if bias else -1)
    net.op("FULLY_CONNECTED", operands, [net.tensor(1, outputs)], 4)
    return net.tflite()


def _convolution(shape: tuple[int, ...], scales: int = 1) -> bytes:
    net = Net()
    kernel = net.tensor(*shape, values=1, scales=scales)
    bias = net.tensor(shape[0], dtype="INT32", values=0)
    net.op("CONV_2D", [net.tensor(1, 8, 8, shape[3]), kernel, bias], [net.tensor(1, 8, 8, shape[0])], 3)
    return net.tflite()


def _depthwise(channels: int) -> bytes:
    net = Net()
    kernel = net.tensor(1, 3, 3, channels, values=1)
    bias = net.tensor(channels, dtype="INT32", values=0)
    net.op("DEPTHWISE_CONV_2D", [net.tensor(1, 8, 8, channels), kernel, bias], [net.tensor(1, 8, 8, channels)], 3)
    return net.tflite()


def _memory(tflite: bytes) -> ParameterMemory:
    return parameter_memory(tflite, mapping.predict(tflite))


@pytest.mark.parametrize(
    ("tflite", "expected"),
    [
        # 10 outputs are 16, one a tile: 16 x 784 weights, 16 biases of 4 bytes.
        (_dense(784, 10), 16 * 784 + 64),
        (_dense(784, 10, bias=False), 16 * 784),
        # 100 outputs are 7 a tile, padded to 8.
        (_dense(784, 100, bias=False), 128 * 784),
        # 3 input channels are 4; per output channel a bias and, with scales of their own, 8 bytes more.
        (_convolution((64, 3, 3, 3)), 64 * 9 * 4 + 64 * 4),
        (_convolution((64, 3, 3, 3), scales=64), 64 * 9 * 4 + 64 * 12),
        # Each tap of a depthwise kernel takes 4 bytes: 24 x 9 x 4 + 24 x 4 = 960, a multiple of 64.
        (_depthwise(24), 960),
    ],
)
def test_parameter_memory_is_that_of_padded_weights(tflite: bytes, expected: int) -> None:
    memory = _memory(tflite)
    assert (memory.cached_bytes, memory.streamed_bytes, memory.total_bytes) == (expected, 0, expected)
    assert memory.confidence == 0.9


def test_parameter_memory_is_nothing_when_nothing_is_mapped() -> None:
    memory = _memory(unary("LEAKY_RELU", 1, 8))
    assert memory == ParameterMemory(cached_bytes=0, streamed_bytes=0, confidence=0.9)


def test_parameter_memory_streams_when_dense_weights_have_very_many_inputs() -> None:
    memory = _memory(_dense(9_504, 10, bias=False))
    assert (memory.cached_bytes, memory.streamed_bytes) == (0, 9_504 * 16)


def test_parameter_memory_streams_what_does_not_fit_when_a_model_is_large() -> None:
    net = Net()
    before = net.tensor(1, 4096)
    for _ in range(3):
        after = net.tensor(1, 1024)
        net.op("FULLY_CONNECTED", [before, net.tensor(1024, 4096, values=1), -1], [after], 4)
    memory = _memory(net.tflite())
    assert (memory.cached_bytes, memory.streamed_bytes) == (2**22, 2**23)


def test_parameter_memory_is_unsure_when_the_compiler_adds_parameters_to_move_data() -> None:
    net = Net()
    shape = net.tensor(2, dtype="INT32", values=[1, 270])
    net.op("RESHAPE", [net.tensor(1, 3, 3, 30), shape], [net.tensor(1, 270)])
    assert _memory(net.tflite()).confidence == 0.4
