"""Where the ops of small models go, and what the compiler would say of them."""

import random
import time
from typing import Any

import pytest

from components.targets import OpMapping, inspect_file, load_target
from components.targets.edge_tpu import statuses
from infra import fuzz_audit

from edge_tpu_graphs import Net, chain, unary

TARGET = load_target("edge_tpu")


def _only(tflite: bytes, **options: object) -> OpMapping:
    (op,) = TARGET.inspect(tflite, **options).ops
    return op


def _transpose(elements: int) -> bytes:
    net = Net()
    order = net.tensor(2, dtype="INT32", values=[1, 0])
    net.op("TRANSPOSE", [net.tensor(elements, 1), order], [net.tensor(1, elements)], 2)
    return net.tflite()


def _convolution(weights: str = "INT8", constant: bool = True, version: int = 3) -> bytes:
    net = Net()
    kernel = net.tensor(8, 3, 3, 4, dtype=weights, values=1 if constant else None)
    bias = net.tensor(8, dtype="INT32", values=0)
    net.op("CONV_2D", [net.tensor(1, 6, 6, 4), kernel, bias], [net.tensor(1, 6, 6, 8)], version)
    return net.tflite()


def _slice(stride: int = 1, **masks: int) -> bytes:
    net = Net()
    indices = [net.tensor(2, dtype="INT32", values=values) for values in (0, 4, stride)]
    net.op("STRIDED_SLICE", [net.tensor(1, 8), *indices], [net.tensor(1, 4)], 1, "StridedSliceOptions", **masks)
    return net.tflite()


def _pool(activation: int) -> bytes:
    net = Net()
    fields = {"fusedActivationFunction": activation}
    net.op("MAX_POOL_2D", [net.tensor(1, 4, 4, 4)], [net.tensor(1, 2, 2, 4)], 2, "Pool2DOptions", **fields)
    return net.tflite()


def _mean(shape: tuple[int, ...], axes: list[int], out: tuple[int, ...]) -> bytes:
    net = Net()
    net.op("MEAN", [net.tensor(*shape), net.tensor(len(axes), dtype="INT32", values=axes)], [net.tensor(*out)], 2)
    return net.tflite()


def _split(parts: int) -> bytes:
    net = Net()
    axis = net.tensor(dtype="INT32", values=0)
    net.op("SPLIT", [axis, net.tensor(parts, 4, 4)], [net.tensor(1, 4, 4) for _ in range(parts)], 2)
    return net.tflite()


def _concatenation(value: int, inputs: int) -> bytes:
    net = Net()
    parts = [net.tensor(1, 4), *(net.tensor(1, 4, values=value, zero_point=-3) for _ in range(inputs - 1))]
    net.op("CONCATENATION", parts, [net.tensor(1, 4 * inputs)], 2, "ConcatenationOptions", axis=1)
    return net.tflite()


def _prelu(*alpha: int) -> bytes:
    net = Net()
    net.op("PRELU", [net.tensor(1, 4, 4, 8), net.tensor(*alpha, values=1)], [net.tensor(1, 4, 4, 8)])
    return net.tflite()


def _bilinear(size: int) -> bytes:
    net = Net()
    sizes = net.tensor(2, dtype="INT32", values=size)
    net.op("RESIZE_BILINEAR", [net.tensor(1, 1, 1, 8), sizes], [net.tensor(1, size, size, 8)])
    return net.tflite()


@pytest.mark.parametrize(
    ("tflite", "status"),
    [
        (unary("LOGISTIC", 1, 8), statuses.MAPPED),
        (unary("LOGISTIC", 2, 3, 4, 5), statuses.RANK),
        (unary("LOGISTIC", 1, 1, 3, 4, 5), statuses.RANK),
        (unary("LOGISTIC", 1, 8, dtype="FLOAT32"), statuses.DATA_TYPE),
        (unary("LOGISTIC", 2, 3, 4, 5, dtype="FLOAT32"), statuses.RANK),
        (unary("QUANTIZE", 1, 8, dtype="FLOAT32"), statuses.UNSPECIFIED),
        (unary("DEQUANTIZE", 1, 8, dtype="FLOAT32"), statuses.DATA_TYPE),
        (unary("LEAKY_RELU", 1, 8), statuses.NOT_SUPPORTED),
        (unary("RELU", 1, 8, version=2), statuses.VERSION),
        (unary("LOGISTIC", 1, 80, 8400), statuses.UNSPECIFIED),
        (_convolution(), statuses.MAPPED),
        (_convolution(weights="INT16"), statuses.DATA_TYPE),
        (_convolution(constant=False), statuses.NOT_CONSTANT),
        (_convolution(version=6), statuses.NOT_PARSED),
        (unary("SOFTMAX", 1, 8, version=9), statuses.NOT_PARSED),
        (unary("RESHAPE", 1, 8, version=2), statuses.NOT_PARSED),
        (unary("CAST", 1, 8, version=2), statuses.NOT_PARSED),
        (_slice(), statuses.MAPPED),
        (_slice(stride=2), statuses.UNSPECIFIED),
        (_slice(ellipsisMask=1), statuses.UNSPECIFIED),
        (_slice(newAxisMask=1), statuses.UNSPECIFIED),
        (_pool(0), statuses.MAPPED),
        (_pool(1), statuses.UNSPECIFIED),
        (_mean((1, 4, 4, 6), [1, 2], (1, 6)), statuses.MAPPED),
        (_mean((1, 4, 4, 6), [-1], (1, 4, 4)), statuses.UNSPECIFIED),
        (_mean((1, 4, 4, 8), [3], (1, 4, 4)), statuses.MAPPED),
        (_mean((1, 4, 4, 8), [0], (4, 4, 8)), statuses.UNSPECIFIED),
        (_split(1), statuses.MAPPED),
        (_split(2), statuses.BATCH),
        (_concatenation(-3, inputs=2), statuses.MAPPED),
        (_concatenation(1, inputs=2), statuses.UNSPECIFIED),
        (_concatenation(-3, inputs=3), statuses.UNSPECIFIED),
        (_prelu(1, 1, 8), statuses.MAPPED),
        (_prelu(4, 4, 8), statuses.UNSPECIFIED),
        (_bilinear(2), statuses.MAPPED),
        (_bilinear(33), statuses.UNSPECIFIED),
    ],
)
def test_inspect_says_what_the_compiler_says_when_a_rule_decides(tflite: bytes, status: str) -> None:
    op = _only(tflite)
    assert (op.status, op.on_target) == (status, status == statuses.MAPPED)
    if status != statuses.MAPPED:
        assert "Got " in op.reason


@pytest.mark.parametrize(
    ("elements", "mapped", "confidence", "evidence"),
    [(57_600, True, 1.0, True), (65_536, True, 0.6, False), (65_537, False, 0.6, False), (112_896, False, 1.0, True)],
)
def test_inspect_is_unsure_when_there_is_no_evidence_at_this_size(
    elements: int, mapped: bool, confidence: float, evidence: bool
) -> None:
    op = _only(_transpose(elements))
    assert (op.on_target, op.confidence) == (mapped, confidence)
    assert ("no evidence at this size" in op.reason) is not evidence


def test_inspect_is_unsure_when_an_op_is_only_documented() -> None:
    op = _only(unary("TANH", 1, 8))
    assert (op.on_target, op.confidence) == (True, 0.8)
    assert "no evidence at this size" in op.reason


def test_inspect_is_unsure_when_only_kin_of_the_op_is_known_to_be_refused() -> None:
    sure, kin = (_only(unary(code, 1, 80, 8400)) for code in ("LOGISTIC", "TANH"))
    assert (sure.status, kin.status) == (statuses.UNSPECIFIED, statuses.UNSPECIFIED)
    assert (sure.confidence, kin.confidence) == (1.0, 0.6)


def test_inspect_is_as_unsure_of_an_op_as_of_those_before_it() -> None:
    net = Net()
    order = net.tensor(2, dtype="INT32", values=[1, 0])
    moved, out = net.tensor(1, 60_000), net.tensor(1, 60_000)
    net.op("TRANSPOSE", [net.tensor(60_000, 1), order], [moved], 2)
    net.op("LOGISTIC", [moved], [out], 2)
    assert [op.confidence for op in TARGET.inspect(net.tflite()).ops] == [0.6, 0.6]


def test_inspect_gives_an_op_behind_the_cut_its_own_status_when_it_fails_by_itself() -> None:
    ops = TARGET.inspect(chain("LOGISTIC", "LEAKY_RELU", "LOGISTIC", "LEAKY_RELU")).ops
    assert [op.status for op in ops] == [
        statuses.MAPPED,
        statuses.NOT_SUPPORTED,
        statuses.MORE_THAN_ONE_SUBGRAPH,
        statuses.NOT_SUPPORTED,
    ]
    assert "Got op 1, LEAKY_RELU, before it." in ops[2].reason


def test_inspect_maps_all_supported_ops_when_there_may_be_several_subgraphs() -> None:
    ops = TARGET.inspect(chain("LOGISTIC", "LEAKY_RELU", "LOGISTIC"), multiple_subgraphs=True).ops
    assert [op.on_target for op in ops] == [True, False, True]


def test_inspect_maps_nothing_when_no_op_is_supported() -> None:
    mapping = TARGET.inspect(chain("LEAKY_RELU", "ELU"))
    assert (mapping.on_target, mapping.on_cpu) == (0, 2)


def test_inspect_keeps_a_branch_beside_the_cut() -> None:
    net = Net()
    x, cut, behind, beside = (net.tensor(1, 8) for _ in range(4))
    net.op("LEAKY_RELU", [x], [cut])
    net.op("LOGISTIC", [x], [beside])
    net.op("LOGISTIC", [cut], [behind])
    assert [op.on_target for op in TARGET.inspect(net.tflite()).ops] == [False, True, True]
    net = Net()
    x, cut, behind, beside, first = (net.tensor(1, 8) for _ in range(5))
    net.op("LOGISTIC", [x], [first])
    net.op("LEAKY_RELU", [first], [cut])
    net.op("LOGISTIC", [cut], [behind])
    net.op("LOGISTIC", [first], [beside])
    assert [op.on_target for op in TARGET.inspect(net.tflite()).ops] == [True, False, False, True]


@pytest.mark.parametrize(
    ("code", "dtype", "options", "status"),
    [
        ("RSQRT", "INT8", {}, statuses.MAPPED),
        ("RSQRT", "INT8", {"min_runtime_version": 13}, statuses.NOT_SUPPORTED),
        ("RSQRT", "INT8", {"compiler_version": "15.0.340273435"}, statuses.NOT_SUPPORTED),
        ("LOGISTIC", "INT8", {"min_runtime_version": 12}, statuses.MAPPED),
        ("LOGISTIC", "INT8", {"min_runtime_version": 10}, statuses.DATA_TYPE),
        ("LOGISTIC", "INT8", {"compiler_version": "1.0"}, statuses.DATA_TYPE),
        ("LOGISTIC", "UINT8", {"compiler_version": "1.0"}, statuses.MAPPED),
        ("EXPAND_DIMS", "INT8", {"compiler_version": "2.1"}, statuses.NOT_SUPPORTED),
        ("EXPAND_DIMS", "INT8", {"compiler_version": "14.1"}, statuses.MAPPED),
        ("TRANSPOSE", "INT8", {"compiler_version": "15.0"}, statuses.NOT_SUPPORTED),
        ("TRANSPOSE", "INT8", {"min_runtime_version": 13}, statuses.MAPPED),
    ],
)
def test_inspect_maps_fewer_ops_when_compiler_or_runtime_are_older(
    code: str, dtype: str, options: dict[str, object], status: str
) -> None:
    assert _only(unary(code, 1, 8, dtype=dtype), **options).status == status


@pytest.mark.parametrize("version", [2, 3])
def test_inspect_refuses_half_pixel_centers_when_the_compiler_is_before_16(version: int) -> None:
    net = Net()
    sizes = net.tensor(2, dtype="INT32", values=8)
    net.op("RESIZE_NEAREST_NEIGHBOR", [net.tensor(1, 4, 4, 8), sizes], [net.tensor(1, 8, 8, 8)], version)
    assert _only(net.tflite()).status == statuses.MAPPED
    before = _only(net.tflite(), compiler_version="14.1").status
    assert before == (statuses.MAPPED if version == 2 else statuses.VERSION)


def test_inspect_pads_channels_only_for_newer_runtimes() -> None:
    def padded(*paddings: int) -> bytes:
        net = Net()
        amounts = net.tensor(4, 2, dtype="INT32", values=[[0, 0], [1, 1], [1, 1], list(paddings)])
        net.op("PAD", [net.tensor(1, 4, 4, 8), amounts], [net.tensor(1, 6, 6, 8 + sum(paddings))])
        return net.tflite()

    assert _only(padded(0, 8)).status == statuses.MAPPED
    assert _only(padded(0, 8), min_runtime_version=12).status == statuses.UNSPECIFIED
    assert _only(padded(0, 0), min_runtime_version=12).status == statuses.MAPPED


@pytest.mark.parametrize(("size", "mapped"), [(64, True), (256, False)])
def test_inspect_refuses_a_bilinear_resize_when_the_image_is_large(size: int, mapped: bool) -> None:
    net = Net()
    sizes = net.tensor(2, dtype="INT32", values=2 * size)
    net.op("RESIZE_BILINEAR", [net.tensor(1, size, size, 32), sizes], [net.tensor(1, 2 * size, 2 * size, 32)])
    assert _only(net.tflite()).on_target is mapped


def test_inspect_takes_no_partly_float_model_when_the_compiler_is_before_16() -> None:
    net = Net()
    x, floats, out = net.tensor(1, 8), net.tensor(1, 8, dtype="FLOAT32"), net.tensor(1, 8, dtype="FLOAT32")
    net.op("DEQUANTIZE", [x], [floats])
    net.op("LOGISTIC", [floats], [out])
    before = TARGET.inspect(net.tflite(), compiler_version="15.0")
    assert {op.status for op in before.ops} == {statuses.NOT_QUANTIZED}
    assert ["Got op 1, LOGISTIC" in op.reason for op in before.ops] == [False, True]
    breaking = TARGET.report(net.tflite(), before, compiler_version="15.0").first_breaking_op
    assert breaking is not None
    assert (breaking.index, breaking.status) == (1, statuses.NOT_QUANTIZED)
    assert breaking.edit
    assert {op.status for op in TARGET.inspect(net.tflite()).ops} == {statuses.DATA_TYPE}


@pytest.mark.parametrize("version", ["", "16", "sixteen", "0.9", "-1.0"])
def test_inspect_raises_when_the_compiler_version_is_none(version: str) -> None:
    with pytest.raises(ValueError, match="compiler_version: got .*expected 1.0 or newer"):
        TARGET.inspect(unary("LOGISTIC", 1, 8), compiler_version=version)


@pytest.mark.parametrize(
    ("versions", "message"),
    [
        ({"compiler_version": "17.3"}, "edgetpu_compiler 17.3 is not known: taken as 16.0"),
        (
            {"compiler_version": "2.0", "min_runtime_version": 14},
            "min_runtime_version 14 is not known to edgetpu_compiler 2.0: taken as 12, its newest",
        ),
        ({"compiler_version": "16.0.384591198", "min_runtime_version": 14}, ""),
    ],
)
def test_inspect_says_what_it_takes_a_version_for_when_it_does_not_know_it(
    versions: dict[str, Any], message: str, caplog: pytest.LogCaptureFixture
) -> None:
    TARGET.inspect(unary("LOGISTIC", 1, 8), **versions)
    assert "\n".join(caplog.messages) == message


def test_report_says_once_what_a_version_is_taken_for(caplog: pytest.LogCaptureFixture) -> None:
    inspect_file(TARGET, unary("LOGISTIC", 1, 8), {"compiler_version": "17.3"})
    assert caplog.messages == ["edgetpu_compiler 17.3 is not known: taken as 16.0"]


def test_inspect_raises_when_the_runtime_is_none() -> None:
    with pytest.raises(ValueError, match="min_runtime_version: got 9, expected one of"):
        TARGET.inspect(unary("LOGISTIC", 1, 8), min_runtime_version=9)


def test_inspect_raises_when_the_file_is_no_model() -> None:
    with pytest.raises(ValueError, match="not a TFLite flatbuffer"):
        TARGET.inspect(b"no model at all")


def test_inspect_ends_in_a_mapping_or_a_value_error_when_a_file_is_mutated() -> None:
    files = [_slice(), _split(3), _mean((1, 4, 4, 6), [1, 2], (1, 6)), _prelu(8), _concatenation(-3, 2), _convolution()]
    random_ = random.Random(0)
    answered = 0
    for _ in range(600):
        tflite = fuzz_audit.mutated(random_, files)
        try:
            mapping = TARGET.inspect(tflite, multiple_subgraphs=random_.random() < 0.5)
        except ValueError:
            continue
        answered += 1
        assert all(0 < op.confidence <= 1 for op in mapping.ops)
        assert all(op.on_target == (op.status == statuses.MAPPED) for op in mapping.ops)
    assert answered > 50


def test_inspect_ends_in_a_mapping_when_graphs_are_random() -> None:
    random_ = random.Random(1)
    codes = ("ADD", "RESHAPE", "TRANSPOSE", "MEAN", "SPLIT", "SOFTMAX", "CONV_2D", "FULLY_CONNECTED", "PRELU", "PACK")
    for _ in range(200):
        net = Net()
        tensors = [
            net.tensor(
                *(random_.choice((0, 1, 3, 70_000)) for _ in range(random_.randrange(6))),
                dtype=random_.choice(("INT8", "UINT8", "INT32", "FLOAT32")),
            )
            for _ in range(8)
        ]
        tensors.append(net.tensor(2, dtype="INT32", values=[7, -9]))
        for _ in range(random_.randrange(8)):
            inputs = [random_.choice((-1, *tensors)) for _ in range(random_.randrange(4))]
            # Any op may compute any tensor, even its own operand: circles among them.
            net.op(random_.choice(codes), inputs, [random_.choice(tensors) for _ in range(random_.randrange(3))])
        mapping = TARGET.inspect(net.tflite())
        assert all(op.on_target == (op.status == statuses.MAPPED) for op in mapping.ops)


def test_inspect_takes_seconds_when_ops_share_a_tensor_of_very_many_dimensions() -> None:
    net = Net()
    shared = net.tensor(*[1] * 200_000)
    for _ in range(2000):
        net.op("LOGISTIC", [shared], [shared], 2)
    tflite = net.tflite()
    started = time.process_time()
    mapping = TARGET.inspect(tflite)
    assert time.process_time() - started < 10  # less than one; a minute if each op looked at all dimensions
    assert {op.status for op in mapping.ops} == {statuses.RANK}
    assert max(len(op.reason) for op in mapping.ops) < 200


def test_inspect_takes_less_than_two_seconds_when_a_model_has_4_mb_of_weights() -> None:
    net = Net()
    before = net.tensor(1, 1024)
    for _ in range(4):
        after = net.tensor(1, 1024)
        net.op("FULLY_CONNECTED", [before, net.tensor(1024, 1024, values=1), -1], [after], 4)
        before = after
    tflite = net.tflite()
    assert len(tflite) > 4_000_000
    started = time.process_time()
    TARGET.inspect(tflite)
    assert time.process_time() - started < 2


@pytest.mark.parametrize(
    ("code", "version", "compiler_version", "release"),
    [
        # What compilers are known to have refused: https://github.com/google-coral/edgetpu/issues/45, 152, 340 and 845.
        ("RESIZE_BILINEAR", 3, "2.0", "2.0"),
        ("RESIZE_NEAREST_NEIGHBOR", 3, "2.1", "2.2"),
        ("REVERSE_V2", 3, "15.0", "2.4"),
        ("CONV_2D", 6, "16.0", "2.6"),
        # By the releases that versions came with.
        ("CONV_2D", 5, "14.1", "2.3"),
        ("SUM", 2, "1.0", "1.14"),
        # Ops that are newer than the compiler.
        ("RELU_0_TO_1", 1, "16.0", "2.6"),
        ("DYNAMIC_UPDATE_SLICE", 1, "16.0", "2.6"),
        ("BROADCAST_ARGS", 1, "15.0", "2.4"),
    ],
)
def test_inspect_refuses_the_whole_model_when_a_version_is_newer_than_the_compiler(
    code: str, version: int, compiler_version: str, release: str
) -> None:
    net = Net()
    tensors = [net.tensor(1, 8) for _ in range(3)]
    net.op("LOGISTIC", tensors[:1], tensors[1:2])
    net.op(code, tensors[1:2], tensors[2:], version)
    mapping = TARGET.inspect(net.tflite(), compiler_version=compiler_version)
    assert {(op.on_target, op.status) for op in mapping.ops} == {(False, statuses.NOT_PARSED)}
    assert f"as TensorFlow {release} has them" in mapping.ops[1].reason
    assert f"Got version {version} of op 1, {code}." in mapping.ops[1].reason
    breaking = TARGET.report(net.tflite(), mapping, compiler_version=compiler_version).first_breaking_op
    assert breaking is not None
    assert breaking.index == 1
    if version > 1:
        before = TARGET.inspect(unary(code, 1, 8, version=version - 1), compiler_version=compiler_version)
        assert before.ops[0].status != statuses.NOT_PARSED


def test_inspect_names_the_type_when_a_quantize_of_integers_is_for_an_old_runtime() -> None:
    net = Net()
    net.op("QUANTIZE", [net.tensor(1, 8, dtype="UINT8")], [net.tensor(1, 8)])
    op = _only(net.tflite(), min_runtime_version=11)
    assert (op.status, "only UINT8 for a runtime before 12" in op.reason) == (statuses.DATA_TYPE, True)
    net = Net()
    net.op("QUANTIZE", [net.tensor(1, 8, dtype="FLOAT32")], [net.tensor(1, 8)])
    assert "one with a float side runs on the CPU" in _only(net.tflite(), min_runtime_version=11).reason
