"""Bytes of parameters on the chip and off it, by the padding for 16 tiles."""

import pytest

from components.targets import load_target
from components.targets.edge_tpu import mapping
from components.targets.edge_tpu.generations import Generation
from components.targets.edge_tpu.parameter_memory import ParameterMemory, parameter_memory

from edge_tpu_graphs import Net, unary


def _dense(inputs: int, outputs: int, bias: range | int | None = None) -> bytes:
    net = Net()
    operands = [net.tensor(1, inputs), net.tensor(outputs, inputs, values=1)]
    operands.append(-1 if bias is None else net.tensor(outputs, dtype="INT32", values=bias))
    net.op("FULLY_CONNECTED", operands, [net.tensor(1, outputs)], 4)
    return net.tflite()


def _convolution(shape: tuple[int, ...], scales: int = 1, bias: range | int = 0) -> bytes:
    net = Net()
    kernel = net.tensor(*shape, values=1, scales=scales)
    operands = [net.tensor(1, 8, 8, shape[3]), kernel, net.tensor(shape[0], dtype="INT32", values=bias)]
    net.op("CONV_2D", operands, [net.tensor(1, 8, 8, shape[0])], 3)
    return net.tflite()


def _depthwise(channels: int, inputs: int) -> bytes:
    net = Net()
    kernel = net.tensor(1, 3, 3, channels, values=1)
    bias = net.tensor(channels, dtype="INT32", values=range(channels))
    net.op("DEPTHWISE_CONV_2D", [net.tensor(1, 8, 8, inputs), kernel, bias], [net.tensor(1, 8, 8, channels)], 3)
    return net.tflite()


def _flattened(height: int, width: int, depth: int, first: str = "LOGISTIC") -> bytes:
    net = Net()
    computed, flat = net.tensor(1, height, width, depth), height * width * depth
    net.op(first, [net.tensor(1, height, width, depth)], [computed])
    net.op("RESHAPE", [computed, net.tensor(2, dtype="INT32", values=[1, flat])], [net.tensor(1, flat)])
    return net.tflite()


def _joined(first: int, second: int, dense: bool = False) -> bytes:
    net = Net()
    total, vectors = net.tensor(1, first + second), [net.tensor(1, first), net.tensor(1, second)]
    net.op("CONCATENATION", vectors, [total], options="ConcatenationOptions", axis=1)
    if dense:
        net.op("FULLY_CONNECTED", [total, net.tensor(16, first + second, values=1), -1], [net.tensor(1, 16)], 4)
    return net.tflite()


def _product(rows: int, columns: int, computed: bool) -> bytes:
    net = Net()
    data = net.tensor(1, columns)
    if computed:
        net.op("LOGISTIC", [net.tensor(1, columns)], [data])
    net.op("FULLY_CONNECTED", [net.tensor(rows, columns, values=1), data, -1], [net.tensor(rows, 1)], 4)
    return net.tflite()


def _single_number() -> bytes:
    net = Net()
    net.op("SUB", [net.tensor(1, 1, values=1), net.tensor(1, 1)], [net.tensor(1, 1)])
    return net.tflite()


def _transposed() -> bytes:
    net = Net()
    order = net.tensor(2, dtype="INT32", values=[1, 0])
    net.op("TRANSPOSE", [net.tensor(2, 64), order], [net.tensor(64, 2)])
    return net.tflite()


def _memory(tflite: bytes, compiler_version: str = "16.0") -> ParameterMemory:
    predicted = mapping.predict(tflite, compiler_version=compiler_version)
    return parameter_memory(tflite, predicted, Generation.of(compiler_version))


@pytest.mark.parametrize(
    ("tflite", "expected"),
    [
        # 10 outputs are 16, one a tile: 16 x 784 weights, 16 biases of 4 bytes.
        (_dense(784, 10, bias=range(10)), 16 * 784 + 64),
        (_dense(784, 10), 16 * 784),
        # 100 outputs are 7 a tile, padded to 8: 128 biases too.
        (_dense(784, 100, bias=range(100)), 128 * 784 + 128 * 4),
        # 783 inputs are padded to 784.
        (_dense(783, 100), 128 * 784),
        # One number on all 16 tiles needs no parameters; one number on 10 of them and zeros on the others do.
        (_dense(784, 16, bias=26), 16 * 784),
        (_dense(784, 100, bias=26), 128 * 784),
        (_dense(784, 10, bias=26), 16 * 784 + 64),
        (_dense(784, 10, bias=0), 16 * 784),
        # 3 input channels are 4; per output channel a bias and, with scales of their own, 8 bytes more.
        (_convolution((64, 3, 3, 3), bias=range(64)), 64 * 9 * 4 + 64 * 4),
        (_convolution((64, 3, 3, 3), scales=64, bias=range(64)), 64 * 9 * 4 + 64 * 12),
        (_convolution((64, 3, 3, 3), scales=64), 64 * 9 * 4 + 64 * 8),
        # 2 outputs are 16, a single one is 4.
        (_convolution((2, 1, 1, 1024)), 16 * 1024),
        (_convolution((1, 1, 1, 1024)), 4 * 1024),
        # Each tap of a depthwise kernel takes 4 bytes: 24 x 9 x 4 + 24 x 4 = 960, a multiple of 64.
        (_depthwise(24, 24), 960),
        # With one input channel 8 outputs are 16, their biases 8: 16 x 9 x 4 + 8 x 4 = 608, in pieces of 64: 640.
        (_depthwise(8, 1), 640),
        # Three matrices of 16 x 12 for the sums over 10 classes; 12 classes fill their groups.
        (unary("SOFTMAX", 1, 10), 3 * 16 * 12),
        (unary("SOFTMAX", 1, 12), 0),
    ],
)
def test_parameter_memory_is_that_of_padded_weights(tflite: bytes, expected: int) -> None:
    memory = _memory(tflite)
    assert (memory.cached_bytes, memory.streamed_bytes, memory.total_bytes) == (expected, 0, expected)
    assert memory.confidence == 0.9


@pytest.mark.parametrize(
    ("tflite", "expected"),
    [
        # 9 positions of 30, padded to 32, become 270 outputs: 17 a tile, padded to 20, each with a bias of 4 bytes.
        (_flattened(3, 3, 30), 320 * (9 * 32 + 4)),
        # 9 positions of 1, padded to 4, become 9 outputs.
        (_flattened(3, 3, 1), 16 * (9 * 4 + 4)),
        # 600 outputs are two times 300, rounded up to 304 and 296: outputs 0 to 303 lie in inputs 0 to 323 (position
        # 10, channel 3 is the last), 304 to 599 in 324 to 639.
        (_flattened(4, 5, 30), 320 * (324 + 4) + 320 * (316 + 4)),
        # Where positions of 1 fill the tiles, 16 pieces are put behind one another.
        (_flattened(64, 64, 1), 16 * (16 * 4 + 4)),
        (_joined(1, 1), 16 * (4 + 4 + 4)),
        # 45 rows are 48 positions of a depth of 1, padded to 4, each a product of 44; 16 biases.
        (_product(45, 44, computed=True), 48 * 4 * 44 + 64),
        (_product(2, 1, computed=True), 4 * 4 * 4 + 64),
    ],
)
def test_parameter_memory_has_the_matrices_that_move_data(tflite: bytes, expected: int) -> None:
    memory = _memory(tflite)
    assert memory == ParameterMemory(cached_bytes=expected, streamed_bytes=0, confidence=0.65)


@pytest.mark.parametrize(
    "tflite",
    [
        # What comes from outside lies in the order of its numbers, and a QUANTIZE leaves it there.
        _flattened(3, 3, 30, first="QUANTIZE"),
        _flattened(3, 3, 32),
        _flattened(1, 1, 30),
        _joined(4, 8),
    ],
)
def test_parameter_memory_has_no_matrix_when_data_lies_where_it_should(tflite: bytes) -> None:
    assert _memory(tflite) == ParameterMemory(cached_bytes=0, streamed_bytes=0, confidence=0.9)


def test_parameter_memory_has_no_matrix_when_a_dense_layer_reads_what_was_joined() -> None:
    # Only its weights: 16 outputs of 3 inputs, padded to 4, and of 4.
    assert _memory(_joined(3, 4, dense=True)) == ParameterMemory(
        cached_bytes=16 * (4 + 4), streamed_bytes=0, confidence=0.9
    )


def test_parameter_memory_streams_a_constant_matrix_when_it_is_multiplied_with_what_comes_from_outside() -> None:
    memory = _memory(_product(58, 2, computed=False))
    # 116 bytes, in pieces of 64: 128.
    assert memory == ParameterMemory(cached_bytes=0, streamed_bytes=128, confidence=0.65)


@pytest.mark.parametrize(("shape", "expected"), [((58, 1), 64), ((1, 1), 0), ((), 0)])
def test_parameter_memory_streams_constant_data_when_it_is_no_single_number(
    shape: tuple[int, ...], expected: int
) -> None:
    net = Net()
    net.op("SUB", [net.tensor(*shape, values=1), net.tensor(58, 1)], [net.tensor(58, 1)])
    memory = _memory(net.tflite())
    assert (memory.cached_bytes, memory.streamed_bytes) == (0, expected)


def test_parameter_memory_streams_a_single_number_when_it_stands_for_data_of_its_shape() -> None:
    assert _memory(_single_number()).streamed_bytes == 64


@pytest.mark.parametrize(("version", "expected"), [("15.0", 16 * 784 + 64), ("16.0", 16 * 784)])
def test_parameter_memory_has_a_bias_of_zeros_when_the_compiler_is_older_than_16(version: str, expected: int) -> None:
    assert _memory(_dense(784, 10, bias=0), compiler_version=version).total_bytes == expected


def test_parameter_memory_is_nothing_when_nothing_is_mapped() -> None:
    memory = _memory(unary("LEAKY_RELU", 1, 8))
    assert memory == ParameterMemory(cached_bytes=0, streamed_bytes=0, confidence=0.9)


def test_parameter_memory_streams_when_dense_weights_have_very_many_inputs() -> None:
    memory = _memory(_dense(9_504, 10))
    assert (memory.cached_bytes, memory.streamed_bytes) == (0, 9_504 * 16)


def test_parameter_memory_streams_what_does_not_fit_when_a_model_is_large() -> None:
    net = Net()
    before = net.tensor(1, 4096)
    for _ in range(3):
        after = net.tensor(1, 1024)
        net.op("FULLY_CONNECTED", [before, net.tensor(1024, 4096, values=1), -1], [after], 4)
    memory = _memory(net.tflite())
    assert (memory.cached_bytes, memory.streamed_bytes) == (2**22, 2**23)


@pytest.mark.parametrize(
    ("tflite", "op"),
    [(_transposed(), "op 0, TRANSPOSE,"), (_flattened(30, 30, 2), "op 1, RESHAPE,"), (_single_number(), "op 0, SUB,")],
)
def test_parameter_memory_names_the_op_when_what_is_stored_for_it_is_not_understood(tflite: bytes, op: str) -> None:
    memory = _memory(tflite)
    assert (memory.confidence, memory.not_understood) == (0.4, op)
    assert op in memory.basis


def test_report_says_what_its_memory_rests_on() -> None:
    target = load_target("edge_tpu")
    model = _transposed()
    report = target.report(model, target.inspect(model))
    assert report.memory.basis == _memory(model).basis
    assert report.measurements["memory_confidence"] == 0.4
