"""Exact verdicts: every offender of constructed models."""

from typing import Any

import numpy as np
import pytest
from tensorflow.lite.python import schema_py_generated as schema

from components.quantization import audit
from components.quantization.conversion.audit import rule_rows
from components.quantization.schemes import QuantizationScheme

import audited_models as models

_CONV = "net/conv/Relu;net/conv/Conv2D"
_POOL = "net/pool/MaxPool"


def _offenders(tflite: bytes, profile: str | None = None) -> list[tuple[str, int, str]]:
    return [(o.rule, o.op_index, o.tensor) for o in audit(tflite, profile).offenders]


def _dynamic(tensors: dict[str, Any], _: Any) -> None:
    tensors[_POOL].shapeSignature = [-1, 2, 2, 3]


def _short(tensors: dict[str, Any], model: Any) -> None:
    model.buffers[tensors["dense/bias"].buffer].data = np.zeros(7, np.uint8)


def _shared_zero_bias(tensors: dict[str, Any], model: Any) -> None:
    model.buffers[tensors["dense/bias"].buffer].data = np.zeros(8, np.uint8)
    tensors["dense/bias"].quantization.scale = [0.7]


def _float_constant(_: dict[str, Any], model: Any) -> None:
    buffer, tensor = schema.BufferT(), schema.TensorT()
    buffer.data, tensor.name, tensor.shape, tensor.buffer = np.zeros(4, np.uint8), "left/over", [1], len(model.buffers)
    tensor.type = schema.TensorType.FLOAT32
    model.buffers.append(buffer)
    model.subgraphs[0].tensors.append(tensor)


def _empty_float(_: dict[str, Any], model: Any) -> None:
    tensor = schema.TensorT()
    tensor.name, tensor.shape, tensor.type = "optional", [0], schema.TensorType.FLOAT32
    model.subgraphs[0].tensors.append(tensor)


def _i8(scale: float = 0.5, zero: int = 0) -> tuple[str, float, int]:
    return "INT8", scale, zero


_FLOAT = ("FLOAT32", 0.0, 0)

_CASES: dict[str, tuple[bytes, list[tuple[str, int, str]]]] = {
    "sound": (models.sound(), []),
    "float": (
        models.one_op("RELU", [_FLOAT, _FLOAT]),
        [
            ("float-edge", -1, "in0"),
            ("float-edge", -1, "out1"),
            ("float-tensor", 0, "in0"),
            ("float-tensor", 0, "out1"),
        ],
    ),
    "float input": (
        models.one_op("QUANTIZE", [_FLOAT, _i8()]),
        [("float-edge", -1, "in0"), ("float-tensor", 0, "in0")],
    ),
    "float output": (
        models.one_op("DEQUANTIZE", [_i8(), _FLOAT]),
        [("float-edge", -1, "out1"), ("dequantize", 0, ""), ("float-tensor", 0, "out1")],
    ),
    "float fallback": (
        models.typed(_POOL, "FLOAT32"),
        [("float-tensor", 1, _POOL), ("float-tensor", 2, _POOL)],
    ),
    "float16": (models.typed(_POOL, "FLOAT16"), [("float-tensor", 1, _POOL), ("float-tensor", 2, _POOL)]),
    "text": (models.typed(_POOL, "STRING"), [("float-tensor", 1, _POOL), ("float-tensor", 2, _POOL)]),
    "complex": (models.typed(_POOL, "COMPLEX64"), [("float-tensor", 1, _POOL), ("float-tensor", 2, _POOL)]),
    "handle without state": (models.typed(_POOL, "RESOURCE"), [("float-tensor", 1, _POOL), ("float-tensor", 2, _POOL)]),
    "hybrid": (
        models.dense(2, 4, source="FLOAT32"),
        [
            ("float-edge", -1, "x"),
            ("float-edge", -1, "y"),
            ("hybrid-op", 0, ""),
            ("float-tensor", 0, "x"),
            ("float-tensor", 0, "y"),
        ],
    ),
    "float weights": (
        models.typed("dense/bias", "FLOAT32"),
        [("float-constant", 3, "dense/bias"), ("hybrid-op", 3, ""), ("bias-type", 3, "dense/bias")],
    ),
    "float constant of no op": (models.edited(_float_constant), [("float-constant", -1, "left/over")]),
    "empty optional tensor": (models.edited(_empty_float), []),
    "LSTM": (models.lstm(), []),
    "fake quantization": (models.one_op("FAKE_QUANT", [_i8(), _i8()]), [("fake-quant", 0, "")]),
    "flex": (models.one_op("FlexErf", [_i8(), _i8()]), [("flex-op", 0, "")]),
    "custom": (models.one_op("MyOp", [_i8(), _i8()]), [("custom-op", 0, "")]),
    "StableHLO": (models.one_op("STABLEHLO_TANH", [_i8(), _i8()]), [("stablehlo-op", 0, "")]),
    "int32 result": (
        models.typed(_CONV, "INT32"),
        [("unquantized-result", 0, _CONV)],
    ),
    "int32 shape arithmetic": (models.one_op("ADD", [("INT32", 0.0, 0)] * 3, inputs=2), []),
    "arg max": (models.one_op("ARG_MAX", [_i8(), ("INT32", 0.0, 0)]), []),
    "comparison": (models.one_op("LESS", [_i8(), _i8(), ("BOOL", 0.0, 0)], inputs=2), []),
    "16x8": (models.dense(2, 4, source="INT16", bias_dtype="INT64"), []),
    "16x8 with int32 bias": (models.dense(2, 4, source="INT16"), []),
    "8-bit with int64 bias": (models.dense(2, 4, bias_dtype="INT64"), [("bias-type", 0, "b")]),
    "control flow": (models.branches("INT8"), []),
    "float branch": (
        models.branches("FLOAT32"),
        [
            ("float-edge", -1, "FLOAT32/a"),
            ("float-edge", -1, "FLOAT32/b"),
            ("float-tensor", 0, "FLOAT32/a"),
            ("float-tensor", 0, "FLOAT32/b"),
        ],
    ),
    "bias scale": (models.quantized("conv/bias", scale=(0.05, 0.2, 0.2)), [("bias-scale", 0, "conv/bias")]),
    "bias scale count": (
        models.quantized("conv/bias", scale=(0.05, 0.1), zero=(0, 0)),
        [("scale-count", 0, "conv/bias"), ("bias-scale", 0, "conv/bias")],
    ),
    "shared bias of zeros": (models.edited(_shared_zero_bias), []),
    "bias zero point": (
        models.quantized("dense/bias", zero=(3,)),
        [("bias-zero-point", 3, "dense/bias")],
    ),
    "bias range": (
        models.filled("dense/bias", 2**30 + 2**21, np.int32),
        [("bias-range", 3, "dense/bias")],
    ),
    # 127 * 128 * 132104 = 2147482624 is below 2**31 = 2147483648, one more is not.
    "accumulator": (models.dense(1, 132105), [("accumulator", 0, "w")]),
    "accumulator at its limit": (models.dense(1, 132104), []),
    "weight zero point": (
        models.quantized("dense/kernel", zero=(1,)),
        [("weight-zero-point", 3, "dense/kernel")],
    ),
    "weight of -128": (models.filled("dense/kernel", -128), [("weight-range", 3, "dense/kernel")]),
    "scale axis": (
        models.quantized("dense/kernel", scale=[0.1] * 12, zero=[0] * 12, axis=1),
        [("scale-axis", 3, "dense/kernel")],
    ),
    "scale count": (
        models.quantized("conv/kernel", scale=(0.1, 0.2), zero=(0, 0)),
        [("scale-count", 0, "conv/kernel"), ("bias-scale", 0, "conv/bias")],
    ),
    "zero point count": (
        models.quantized("conv/kernel", zero=(0,)),
        [("scale-count", 0, "conv/kernel")],
    ),
    "quantized dimension out of range": (
        models.quantized("conv/kernel", axis=9),
        [("scale-count", 0, "conv/kernel"), ("scale-axis", 0, "conv/kernel")],
    ),
    "scale of 0": (
        models.quantized("net/dense/BiasAdd", scale=(0.0,)),
        [("scale-value", 3, "net/dense/BiasAdd")] * 1 + [("scale-value", 4, "net/dense/BiasAdd")],
    ),
    "infinite scale": (
        models.quantized("net/dense/BiasAdd", scale=(float("inf"),)),
        [("scale-value", 3, "net/dense/BiasAdd"), ("scale-value", 4, "net/dense/BiasAdd")],
    ),
    "scale that is not a number": (
        models.quantized("net/dense/BiasAdd", scale=(float("nan"),)),
        [("scale-value", 3, "net/dense/BiasAdd"), ("scale-value", 4, "net/dense/BiasAdd")],
    ),
    "scale below the floor": (
        models.quantized("net/dense/BiasAdd", scale=(1e-40,)),
        [("scale-value", 3, "net/dense/BiasAdd"), ("scale-value", 4, "net/dense/BiasAdd")],
    ),
    "zero point of int8": (
        models.quantized("net/dense/BiasAdd", zero=(128,)),
        [("zero-point", 3, "net/dense/BiasAdd"), ("zero-point", 4, "net/dense/BiasAdd")],
    ),
    "zero point of int16": (
        models.one_op("RELU", [("INT16", 0.5, 0), ("INT16", 0.5, 1)]),
        [("zero-point", 0, "out1")],
    ),
    "missing scale": (models.one_op("TANH", [_i8(), ("INT8", 0.0, 0)]), [("missing-scale", 0, "out1")]),
    "same scale": (
        models.quantized("net/flat/Reshape", scale=(0.5,)),
        [("same-scale", 2, _POOL)],
    ),
    "concatenation": (
        models.one_op("CONCATENATION", [_i8(), _i8(0.25), _i8()], inputs=2),
        [("same-scale", 0, "in1")],
    ),
    "concatenation of uint8": (
        models.one_op("CONCATENATION", [("UINT8", 0.5, 3), ("UINT8", 0.25, 7), ("UINT8", 0.5, 3)], inputs=2),
        [],
    ),
    "softmax": (models.quantized("y", zero=(0,)), [("fixed-scale", 4, "y")]),
    "sigmoid": (models.one_op("LOGISTIC", [_i8(), _i8(1 / 128, -128)]), [("fixed-scale", 0, "out1")]),
    "tanh of uint8": (models.one_op("TANH", [("UINT8", 0.5, 3), ("UINT8", 1 / 128, 128)]), []),
    "tanh of int16": (
        models.one_op("TANH", [("INT16", 0.5, 0), ("INT16", 1 / 128, 0)]),
        [("fixed-scale", 0, "out1")],
    ),
    "log softmax": (models.one_op("LOG_SOFTMAX", [_i8(), _i8(1 / 16, 127)]), []),
    "L2 normalization": (models.one_op("L2_NORMALIZATION", [_i8(), _i8(1 / 256)]), [("fixed-scale", 0, "out1")]),
    "addition below its limit": (models.one_op("ADD", [_i8(2.0**18), _i8(), _i8(1.0)], inputs=2), []),
    "addition": (models.one_op("ADD", [_i8(2.0**19), _i8(), _i8(1.0)], inputs=2), [("multiplier", 0, "out2")]),
    "dynamic batch": (models.edited(_dynamic), [("dynamic-shape", 1, _POOL)]),
    "constant size": (models.edited(_short), [("constant-size", 3, "dense/bias")]),
}


def _dead_layer(tensors: dict[str, Any], model: Any) -> None:
    model.buffers[tensors["dense/kernel"].buffer].data = np.zeros(24, np.uint8)
    tensors["net/dense/BiasAdd"].quantization.scale = [1e-40]


def test_audit_lets_the_scale_of_what_is_always_the_same_be() -> None:
    assert audit(models.edited(_dead_layer)).ready


@pytest.mark.parametrize("name", _CASES)
def test_audit_names_exactly_the_offenders_of_a_model(name: str) -> None:
    tflite, expected = _CASES[name]
    assert sorted(_offenders(tflite)) == sorted(expected)


def test_audit_reports_every_rule_as_it_is_documented() -> None:
    documented = {name: kind for name, kind, _, _ in rule_rows()}
    for tflite, _ in _CASES.values():
        for offender in audit(tflite).offenders:
            assert documented[offender.rule] == offender.kind
    assert len(documented) == len(rule_rows())


def test_audit_of_edge_tpu_refuses_several_scales_of_dense_weights() -> None:
    tflite = models.quantized("dense/kernel", scale=(0.1, 0.1), zero=(0, 0))
    assert _offenders(tflite) == []
    assert _offenders(tflite, "edge_tpu") == [("dense-scales", 3, "dense/kernel")]


def test_audit_allows_the_custom_op_of_a_runtime_that_brings_it() -> None:
    compiled = models.one_op("edgetpu-custom-op", [_i8(), _i8()])
    assert _offenders(compiled) == [("custom-op", 0, "")]
    assert _offenders(compiled, "edge_tpu") == []


def test_audit_names_the_fix_when_a_version_is_above_the_ceiling() -> None:
    tflite = models.one_op("EXP", [_i8(), _i8()], version=2)
    (offender,) = audit(tflite, "edge_tpu").offenders
    assert (offender.rule, offender.kind) == ("op-version", "profile")
    assert "softmax, sigmoid or tanh" in offender.fix


def test_audit_refuses_int16_when_the_target_computes_8_bits() -> None:
    tflite = models.dense(2, 4, source="INT16", bias_dtype="INT64")
    assert _offenders(tflite, "edge_tpu") == [("activation-bits", 0, "x")]


def test_audit_refuses_several_scales_when_the_scheme_has_one() -> None:
    scheme = QuantizationScheme(name="mine", per_axis_weights=False)
    (offender,) = audit(models.sound(), scheme=scheme).offenders
    assert (offender.rule, offender.tensor) == ("scheme-scales", "conv/kernel")


def test_audit_names_the_layer_when_the_tensor_tells_it() -> None:
    (offender,) = audit(models.edited(_dynamic)).offenders
    assert offender.layer == "pool"


def test_audit_notes_dead_channels_and_unreachable_integers() -> None:
    found = audit(models.filled("dense/kernel", 0))
    assert found.ready
    assert [(note.rule, note.tensor) for note in found.notes] == [
        ("dead-channels", "dense/kernel"),
        ("few-codes", "net/dense/BiasAdd"),
    ]
    # Bias 7 * 0.025 / 0.5 = 0.35 is the integer 0, whatever the input.
    assert "within 0..0" in found.notes[1].reason


def test_audit_notes_outputs_that_took_few_values() -> None:
    found = audit(models.sound(), outputs={"y": np.array([[-128, 127]], np.int8)})
    assert [(note.rule, note.tensor) for note in found.notes] == [("few-codes", "y")]


def test_audit_notes_a_bias_of_another_scale_when_outputs_hardly_change() -> None:
    # An error of 10 * 0.013 is more than half of the output's scale of 0.25, one of 10 * 0.01 is less.
    assert _offenders(models.quantized("conv/bias", scale=(0.063, 0.1, 0.2))) == [("bias-scale", 0, "conv/bias")]
    found = audit(models.quantized("conv/bias", scale=(0.06, 0.1, 0.2)))
    assert found.ready
    assert [note.rule for note in found.notes] == ["small-bias-scale"]


def test_audit_notes_uint8_scales_that_differ() -> None:
    found = audit(models.one_op("RESHAPE", [("UINT8", 0.5, 3), ("UINT8", 0.25, 3)]))
    assert found.ready
    assert [note.rule for note in found.notes] == ["uint8-scales"]


def test_audit_is_the_same_json_and_a_table_of_all_columns() -> None:
    found = audit(models.edited(_dynamic))
    assert found.to_json() == audit(models.edited(_dynamic)).to_json()
    assert found.to_dict()["offenders"][0]["rule"] == "dynamic-shape"
    header, row = str(found).splitlines()
    assert header.split() == ["op", "name", "tensor", "layer", "rule", "reason;", "fix"]
    assert row.split()[:5] == ["0:1", "MAX_POOL_2D", _POOL, "pool", "dynamic-shape"]
