"""Biases get the scale of their op's input times that of its weights."""

import numpy as np
import pytest

from components.quantization import audit
from components.quantization.conversion import flatbuffer
from components.quantization.conversion.bias_scales import rescaled

import audit_changes
import audited_models


def _two_dense(bias: list[int], dtype: str, scales: tuple[float, float]) -> bytes:
    """Two layers of weights of scale 0.5 that share a bias of scale 0.25; `scales` are those of their inputs."""
    w = audited_models.Writer()
    source = "INT16" if dtype == "INT64" else "INT8"
    weights = w.tensor("w", (2, 2), scale=0.5, zero=0, values=1)
    shared = w.tensor("b", (2,), dtype, scale=0.25, zero=0, values=bias)
    ends = [[w.tensor(f"{end}{i}", (1, 2), source, scales[i], 0) for end in "xy"] for i in range(2)]
    for x, y in ends:
        w.op("FULLY_CONNECTED", [x, weights, shared], [y], 4)
    return w.finish([x for x, _ in ends], [y for _, y in ends])


def _biases(tflite: bytes) -> list[tuple[list[float], list[int]]]:
    """The scale and the integers of each layer's bias."""
    model = flatbuffer.read_object(tflite)
    tensors = [model.subgraphs[0].tensors[op.inputs[2]] for op in model.subgraphs[0].operators]
    dtypes = {2: "<i4", 4: "<i8"}  # of the schema's INT32 and INT64
    return [
        (
            list(tensor.quantization.scale),
            np.frombuffer(bytes(bytearray(model.buffers[tensor.buffer].data)), dtypes[tensor.type]).tolist(),
        )
        for tensor in tensors
    ]


@pytest.mark.parametrize("dtype", ["INT32", "INT64"])
@pytest.mark.parametrize(
    ("scales", "expected"),
    [
        ((0.5, 1.0), [([0.25], [8, -6]), ([0.5], [4, -3])]),
        ((1.0, 0.5), [([0.5], [4, -3]), ([0.25], [8, -6])]),
        ((1.0, 0.25), [([0.5], [4, -3]), ([0.125], [16, -12])]),
    ],
)
def test_rescaled_gives_each_op_its_bias_when_they_share_one(
    dtype: str, scales: tuple[float, float], expected: list[tuple[list[float], list[int]]]
) -> None:
    tflite, changed = rescaled(_two_dense([8, -6], dtype, scales))
    assert _biases(tflite) == expected
    assert changed == sum(scale != 0.5 for scale in scales)
    assert not [offender for offender in audit(tflite).offenders if offender.rule == "bias-scale"]


@pytest.mark.parametrize(("bias", "scales"), [([8, -6], (0.5, 0.5)), ([0, 0], (1.0, 0.25))])
def test_rescaled_returns_the_same_bytes_when_scales_are_right_or_biases_zero(
    bias: list[int], scales: tuple[float, float]
) -> None:
    tflite = _two_dense(bias, "INT32", scales)
    assert rescaled(tflite) == (tflite, 0)


@pytest.mark.parametrize("operands", [20, 24])  # without, and with those of a normalization that there is not
def test_rescaled_gives_biases_of_an_lstm_the_scale_of_input_times_weights(operands: int) -> None:
    model = flatbuffer.read_object(audited_models.lstm(audit_changes.requantized("net/lstm/b1", 0.025)))
    (op,) = model.subgraphs[0].operators
    op.inputs = [*op.inputs, *[-1] * (operands - len(op.inputs))]
    wrong = flatbuffer.write_object(model)
    assert [offender.rule for offender in audit(wrong).offenders] == ["bias-scale"]
    tflite, changed = rescaled(wrong)
    assert changed == 1
    assert not audit(tflite).offenders
    graph = flatbuffer.read_object(tflite).subgraphs[0]
    bias = graph.tensors[graph.operators[0].inputs[13]]
    assert bias.name == b"net/lstm/b1"
    assert bias.quantization.scale == pytest.approx([0.05])


def test_rescaled_leaves_an_lstm_alone_whose_scales_are_right() -> None:
    tflite = audited_models.lstm()
    assert rescaled(tflite) == (tflite, 0)
