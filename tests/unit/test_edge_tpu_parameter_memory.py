"""Bytes of parameters on the chip and off it, by the padding for 16 tiles."""

import contextlib
import gzip
import random
import time
from pathlib import Path

import pytest

from components.quantization.conversion import flatbuffer
from components.targets import load_target
from components.targets._operation import Operation, read_operations
from components.targets.edge_tpu import mapping
from components.targets.edge_tpu.generations import Generation
from components.targets.edge_tpu.parameter_memory import ParameterMemory, parameter_memory, place

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


def _transposed(shape: tuple[int, ...], order: tuple[int, ...]) -> bytes:
    net = Net()
    axes = net.tensor(len(order), dtype="INT32", values=list(order))
    net.op("TRANSPOSE", [net.tensor(*shape), axes], [net.tensor(*(shape[axis] for axis in order))])
    return net.tflite()


def _products(rows: int, columns: int, batch: int, returned: bool = False, copies: int = 1) -> bytes:
    """Products of a constant matrix with rows that come from outside, behind a RESHAPE that moves nothing."""
    net = Net()
    matrix = net.tensor(rows, columns, values=1)
    for _ in range(copies):
        data, result = net.tensor(batch, columns), net.tensor(rows, batch)
        shape = net.tensor(2, dtype="INT32", values=[batch, columns])
        net.op("RESHAPE", [net.tensor(1, batch, columns), shape], [data])
        net.op("FULLY_CONNECTED", [matrix, data, -1], [result], 4)
        if returned:
            axes = net.tensor(2, dtype="INT32", values=[1, 0])
            net.op("TRANSPOSE", [result, axes], [net.tensor(batch, rows)])
    return net.tflite()


def _convolved(shape: tuple[int, ...], code: str, depth: int = 1) -> bytes:
    """A 1x1 convolution of 4 channels whose result is moved."""
    net = Net()
    result = net.tensor(*shape)
    kernel = net.tensor(shape[3], 1, 1, 4, values=1)
    net.op("CONV_2D", [net.tensor(*shape[:3], 4), kernel, net.tensor(shape[3], dtype="INT32", values=0)], [result], 3)
    if code == "TRANSPOSE":
        axes = net.tensor(4, dtype="INT32", values=[0, 3, 1, 2])
        net.op(code, [result, axes], [net.tensor(1, shape[3], shape[1], shape[2])])
    else:
        new = (1, shape[1] * shape[2] * shape[3] // depth, depth)
        net.op(code, [result, net.tensor(3, dtype="INT32", values=list(new))], [net.tensor(*new)])
    return net.tflite()


def _merged(*shape: int) -> bytes:
    """A RESHAPE of the two innermost dimensions of what was computed to one."""
    net = Net()
    computed, merged = net.tensor(*shape), (*shape[:-2], shape[-2] * shape[-1])
    net.op("LOGISTIC", [net.tensor(*shape)], [computed])
    net.op("RESHAPE", [computed, net.tensor(len(merged), dtype="INT32", values=list(merged))], [net.tensor(*merged)])
    return net.tflite()


def _sliced(begin: int, end: int, begin_mask: int = 0) -> bytes:
    net = Net()
    bounds = [net.tensor(2, dtype="INT32", values=values) for values in ([0, begin], [1, end], [1, 1])]
    result = net.tensor(1, end if begin_mask else end - begin)
    net.op(
        "STRIDED_SLICE", [net.tensor(1, 145), *bounds], [result], options="StridedSliceOptions", beginMask=begin_mask
    )
    return net.tflite()


def _padded(before: int, after: int) -> bytes:
    net = Net()
    paddings = net.tensor(4, 2, dtype="INT32", values=[[0, 0], [0, 0], [0, 0], [0, after - before]])
    net.op("PAD", [net.tensor(1, 8, 8, before), paddings], [net.tensor(1, 8, 8, after)])
    return net.tflite()


def _scaled(data: tuple[int, ...], constant: tuple[int, ...], result: tuple[int, ...], values: object) -> bytes:
    net = Net()
    net.op("MUL", [net.tensor(*data), net.tensor(*constant, values=values)], [net.tensor(*result)])
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
        # A batch of 64 is 2 x 32: pieces of 32 are gathered by 32 outputs of 32 groups, 2 positions swapped by 4 groups
        # of 8 inputs; the product is 4 positions of a group.
        (_products(2, 1, 64), 64 + 4 * 4 * 8 + 32 * 32 * 4),
        # One of 300 is 10 x 30, which fills no groups: 300 outputs, padded to 320, of 9 x 32 + 30 inputs and a bias.
        (_products(2, 1, 300), 64 + 4 * 12 * 40 + 32 * 30 * 4 + 320 * (9 * 32 + 32 + 4)),
        # Positions of the batch, and rows as their depth: that is how it is computed. 4 rows of 4 inputs.
        (_products(4, 2, 64, returned=True), 64),
        # 64 numbers become positions by 256 outputs of 64 inputs, each with a bias; 15 positions are gathered by 16
        # outputs of 15 groups.
        (_transposed((15, 64), (1, 0)), 256 * (64 + 4) + 16 * 15 * 4),
        # A depth of 256 is written out and read again: 64 bytes.
        (_transposed((15, 256), (1, 0)), 64 + 16 * 15 * 4),
        # From rows, columns, depth to depth, rows, columns: rows and depth are swapped, 20 columns gathered.
        (_transposed((1, 20, 20, 144), (0, 3, 1, 2)), 64 + 4 * 32 * 80 + 32 * 20 * 4),
        # The depth stays where it is.
        (_transposed((1, 49, 4, 32), (0, 2, 1, 3)), 4 * 64 * 196),
        # 10 positions of 10, padded to 12, are 100 outputs, padded to 128.
        (_merged(1, 144, 10, 10), 128 * (9 * 12 + 12 + 4)),
        # A convolution makes each of its 32 outputs a group: 128 of 4 inputs; 2 rows are swapped, 2 columns gathered.
        (_convolved((1, 2, 2, 32), "TRANSPOSE"), 128 * 4 + 4 * 4 * 8 + 64),
        (_convolved((1, 8, 8, 6), "RESHAPE"), 32 * 4),
        # 18 outputs as 6 positions of 3, each padded to a group, are 24, padded to 32; as they are, 32 too.
        (_convolved((1, 8, 8, 18), "RESHAPE", depth=3), 32 * 4),
        # 30 outputs as 10 positions of 3 are 40, padded to 48; as they are, 32.
        (_convolved((1, 8, 8, 30), "RESHAPE", depth=3), 48 * 4),
        # 128 numbers from the 17th on lie in 33 groups; the first 17 lie where they should.
        (_sliced(17, 145), 128 * (33 * 4 + 4)),
        # 24 channels become 28, padded to 32.
        (_padded(24, 28), 32 * (24 + 4)),
        # A number for each channel of a single position: 145, padded to 148, on each of 16 tiles.
        (_scaled((1, 145), (145,), (1, 145), range(-72, 73)), 16 * 148),
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
        _merged(1, 144, 20, 20),
        _sliced(0, 17),
        _sliced(16, 144),
        _sliced(17, 128, begin_mask=0b10),  # from the start, whatever the bound says
        _transposed((1, 1, 8, 8), (1, 0, 2, 3)),
        # One number throughout.
        _scaled((1, 8, 8, 16), (16,), (1, 8, 8, 16), 127),
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


def test_parameter_memory_caches_a_single_number_when_it_stands_for_data_of_its_shape() -> None:
    memory = _memory(_single_number())
    assert (memory.cached_bytes, memory.streamed_bytes) == (64, 0)


@pytest.mark.parametrize(
    ("tflite", "expected"),
    [
        # On each of 16 tiles.
        (_scaled((1, 8, 8, 20), (20,), (1, 8, 8, 20), range(20)), 16 * 20),
        # Both are repeated to the shape of the result.
        (_scaled((1, 49, 1), (512,), (1, 49, 512), 1), 49 * 512),
    ],
)
def test_parameter_memory_streams_a_number_for_each_channel_when_there_are_several_positions(
    tflite: bytes, expected: int
) -> None:
    memory = _memory(tflite)
    assert (memory.cached_bytes, memory.streamed_bytes) == (0, expected)


def test_parameter_memory_has_one_copy_when_all_products_are_of_one_matrix() -> None:
    single, several = _memory(_products(2, 1, 64)), _memory(_products(2, 1, 64, copies=3))
    assert (several.cached_bytes, several.streamed_bytes) == (single.cached_bytes, 64)


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
    [
        (_flattened(30, 30, 2), "op 1, RESHAPE,"),
        (_single_number(), "op 0, SUB,"),
        # A prime: by the rule its positions would be swapped by a matrix of 16 MiB.
        (_products(2, 1, 1009), "op 1, FULLY_CONNECTED,"),
    ],
)
def test_parameter_memory_names_the_op_when_what_is_stored_for_it_is_not_understood(tflite: bytes, op: str) -> None:
    memory = _memory(tflite)
    assert (memory.confidence, memory.not_understood) == (0.4, op)
    assert op in memory.basis


def test_report_says_what_its_memory_rests_on() -> None:
    target = load_target("edge_tpu")
    model = _single_number()
    report = target.report(model, target.inspect(model))
    assert report.memory.basis == _memory(model).basis
    assert report.measurements["memory_confidence"] == 0.4


def _circle() -> bytes:
    """A RESHAPE that writes what it reads, as does a product."""
    net = Net()
    result, shape = net.tensor(2, 4), net.tensor(2, dtype="INT32", values=[2, 4])
    net.op("RESHAPE", [result, shape], [result])
    net.op("FULLY_CONNECTED", [net.tensor(2, 3, values=1), net.tensor(4, 3), -1], [result], 4)
    return net.tflite()


def _long_chain(length: int) -> bytes:
    """RESHAPEs in a row, then as many TRANSPOSEs of the last, and as many products."""
    net = Net()
    last, shape = net.tensor(2, 4), net.tensor(2, dtype="INT32", values=[2, 4])
    axes, matrix = net.tensor(2, dtype="INT32", values=[1, 0]), net.tensor(2, 4, values=1)
    for _ in range(length):
        last, before = net.tensor(2, 4), last
        net.op("RESHAPE", [before, shape], [last])
    for _ in range(length):
        net.op("TRANSPOSE", [last, axes], [net.tensor(4, 2)])
        net.op("FULLY_CONNECTED", [matrix, last, -1], [net.tensor(2, 2)], 4)
    return net.tflite()


def _one(code: str, *shapes: tuple[int, ...], result: tuple[int, ...] = (1, 8), constants: int = 0) -> bytes:
    net = Net()
    operands = [
        net.tensor(*shape, values=1 if i >= len(shapes) - constants else None) for i, shape in enumerate(shapes)
    ]
    net.op(code, operands, [net.tensor(*result)])
    return net.tflite()


@pytest.mark.parametrize(
    "tflite",
    [
        _circle(),
        _one("DEPTHWISE_CONV_2D", (1, 8), (8, 8), result=(1, 8), constants=1),
        _one("PAD", (), (4, 2), result=(1, 8)),
        _one("TRANSPOSE", (2, 4), (2,), result=()),
        _one("STRIDED_SLICE", (0,), (1,), (1,), (1,), result=(8,)),
        _one("RESHAPE", (*[2] * 20_000, 8), result=(8,)),
        _one("SPLIT", (8,), result=()),
        _one("CONCATENATION", (), (8,), result=(8,)),
        _one("FULLY_CONNECTED", (2, 4), (), result=(), constants=1),
    ],
    ids=["circle", "depthwise", "pad", "transpose", "slice", "rank", "split", "join", "product"],
)
def test_parameter_memory_takes_any_graph(tflite: bytes) -> None:
    operations = read_operations(tflite, flatbuffer.read_subgraphs(tflite)[0], Operation)
    started = time.process_time()
    memory = place(operations, Generation.of("16.0"))  # as if all were mapped
    assert time.process_time() - started < 1
    assert memory.total_bytes >= 0


def test_parameter_memory_takes_time_in_proportion_to_the_ops() -> None:
    tflite = _long_chain(2_000)
    started = time.process_time()
    _memory(tflite)
    assert time.process_time() - started < 10


def test_parameter_memory_never_raises_when_files_are_damaged(shared: Path) -> None:
    chance = random.Random(3)
    paths = sorted((shared / "edgetpu" / "skeletons").glob("*.tflite.gz"), key=lambda path: path.stat().st_size)
    files = [gzip.decompress(path.read_bytes()) for path in paths[:100]]
    read = 0
    for number in range(1_500):
        damaged = bytearray(files[number % len(files)])
        for _ in range(chance.randrange(1, 5)):
            damaged[chance.randrange(len(damaged))] = chance.randrange(256)
        with contextlib.suppress(ValueError):  # the file is none any more
            operations = read_operations(bytes(damaged), flatbuffer.read_subgraphs(bytes(damaged))[0], Operation)
            place(operations, Generation.of("16.0"))
            read += 1
    assert read > 500
