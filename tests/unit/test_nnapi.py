"""Target nnapi: what TFLite's delegate hands to Android, by constructed graphs."""

from pathlib import Path

import pytest

from components.quantization import schemes
from components.targets import Mapping, load_target
from components.targets.nnapi import TARGET, NnapiOptions, rules
from components.targets.nnapi.operations import API_LEVELS, SUPPORTED

from edge_tpu_graphs import Net, chain, unary


def _only(mapping: Mapping) -> tuple[bool, str, str]:
    (op,) = mapping.ops
    return op.on_target, op.status, op.reason


def _dense(scales: int, version: int = 4) -> bytes:
    net = Net()
    source, result = net.tensor(1, 8), net.tensor(1, 4)
    weights = net.tensor(4, 8, values=1, scales=scales)
    net.op("FULLY_CONNECTED", [source, weights, net.tensor(4, dtype="INT32", values=0)], [result], version)
    return net.tflite()


def _convolution(*, dtype: str = "INT8", bias: bool = True, dilation: int = 1, scales: int = 1, size: int = 4) -> bytes:
    net = Net()
    source, result = net.tensor(1, size, 4, 8, dtype=dtype), net.tensor(1, 4, 4, 4, dtype=dtype)
    operands = [source, net.tensor(4, 1, 1, 8, dtype=dtype, values=1, scales=scales)]
    if bias:
        operands.append(net.tensor(4, dtype="INT32", values=0))
    fields = {"dilationWFactor": dilation, "dilationHFactor": dilation, "strideW": 1, "strideH": 1}
    net.op("CONV_2D", operands, [result], 3, "Conv2DOptions", **fields)
    return net.tflite()


def test_signed_data_need_level_30() -> None:
    assert [TARGET.inspect(unary("RELU", 1, 8), api_level=level).on_target for level in API_LEVELS] == [0, 0, 0, 1, 1]
    on_target, status, reason = _only(TARGET.inspect(unary("RELU", 1, 8), api_level=29))
    assert (on_target, status) == (False, "kUnsupportedInputType")
    assert reason == "INT8 data need API level 30, the first with TENSOR_QUANT8_ASYMM_SIGNED. Got INT8 for 29."
    assert TARGET.inspect(unary("RELU", 1, 8, dtype="UINT8"), api_level=27).on_target == 1


@pytest.mark.parametrize(("code", "level"), [("RELU", 27), ("SQUEEZE", 28), ("PRELU", 29)])
def test_op_is_delegated_since_its_level(code: str, level: int) -> None:
    tflite = unary(code, 1, 8, dtype="UINT8")
    assert [TARGET.inspect(tflite, api_level=one).on_target for one in API_LEVELS] == [
        int(one >= level) for one in API_LEVELS
    ]


def test_dense_is_refused_when_its_weights_have_a_scale_per_channel() -> None:
    assert _only(TARGET.inspect(_dense(1)))[0]
    on_target, status, reason = _only(TARGET.inspect(_dense(4)))
    assert (on_target, status) == (False, "kUnsupportedQuantizationType")
    assert reason.endswith("have one scale. Got 4 scales.")


def test_op_is_refused_when_the_delegate_does_not_know_its_version() -> None:
    assert _only(TARGET.inspect(_dense(1, version=9)))[1] == "kUnsupportedOperatorVersion"


def test_convolution_keeps_its_rules() -> None:
    assert _only(TARGET.inspect(_convolution()))[0]
    assert _only(TARGET.inspect(_convolution(scales=4)))[0]
    assert _only(TARGET.inspect(_convolution(bias=False)))[1] == "kMissingRequiredOperand"
    old = {"dtype": "UINT8"}
    assert _only(TARGET.inspect(_convolution(**old, scales=4), api_level=28))[1] == "kUnsupportedQuantizationType"
    # 0.5 * 0.5 < 0.5: the scales of the graphs keep the oldest rule.
    assert _only(TARGET.inspect(_convolution(**old), api_level=27))[0]
    assert _only(TARGET.inspect(_convolution(**old, dilation=2), api_level=28))[1] == "kUnsupportedOperandValue"
    assert _only(TARGET.inspect(_convolution(**old, dilation=2), api_level=29))[0]


def test_sizes_are_static_but_for_a_batch_of_one() -> None:
    for signature, expected in (([-1, 8, 8, 3], True), ([1, -1, 8, 3], False)):
        net = Net()
        source, result = net.tensor(1, 8, 8, 3), net.tensor(1, 8, 8, 3)
        net._graph.tensors[source].shapeSignature = signature
        net.op("RELU", [source], [result])
        on_target, status, _ = _only(TARGET.inspect(net.tflite()))
        assert on_target is expected
        assert expected or status == "kInputTensorShouldHaveConstantShape"


def test_compile_copies_and_claims_no_compilation() -> None:
    model = TARGET.compile(chain("RELU", "GELU"), options='{"api_level": 31}')
    assert model.tflite == chain("RELU", "GELU")
    assert not model.report.compiled
    assert model.report.measurements == {"api_level": 31.0}
    assert model.report.first_breaking_op is not None
    assert (model.report.first_breaking_op.op, model.report.first_breaking_op.status) == (
        "GELU",
        "kUnsupportedOperator",
    )
    assert model.report.first_breaking_op.edit.startswith("replace it")


def test_options_are_refused_when_there_is_no_such_level() -> None:
    assert TARGET.require_options("") == NnapiOptions().to_json() == '{"api_level":30}'
    for options in ('{"api_level": 26}', '{"api_level": "30"}', "[]", "{", '{"level": 30}'):
        with pytest.raises(ValueError, match="options of target 'nnapi'"):
            TARGET.require_options(options)


def test_check_refuses_a_scheme_of_16_bits() -> None:
    TARGET.check(schemes.load_scheme("full_int8"))
    with pytest.raises(ValueError, match="target 'nnapi' cannot run scheme 'int16x8'"):
        TARGET.check(schemes.load_scheme("int16x8"))


def test_every_op_has_a_level_of_android() -> None:
    assert {op.level for op in SUPPORTED.values()} <= set(API_LEVELS)


@pytest.mark.parametrize(
    ("name", "off"),
    [
        ("models/mlperf_tiny/kws_ref_model.tflite", []),
        ("models/mlperf_tiny/pretrainedResnet_quant.tflite", []),
        ("edgetpu/models/mobilenet_v1_0.25_128_quant.tflite", []),
        ("edgetpu/models/deeplabv3_mnv2_dm05_pascal_quant.tflite", ["AVERAGE_POOL_2D"]),  # its window is 33 x 33
    ],
)
def test_public_model_is_delegated(name: str, off: list[str], shared: Path) -> None:
    mapping = load_target("nnapi").inspect((shared / name).read_bytes())
    assert [op.op for op in mapping.ops if not op.on_target] == off


def test_every_status_has_an_edit() -> None:
    assert [rule.status for rule in rules.RULES if not rules.edit("CONV_2D", rule.status)] == []
