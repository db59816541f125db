"""Exact verdicts: every offender and every note of constructed models."""

from typing import Any

import numpy as np
import pytest
from tensorflow.lite.python import schema_py_generated as schema

from components.quantization import audit
from components.quantization.conversion.audit import Audit, rule_rows
from components.quantization.schemes import QuantizationScheme

import audited_models as models
from audit_cases import CASES, TARGET_CASES, Offenders

_POOL = "net/pool/MaxPool"


def _offenders(found: Audit) -> Offenders:
    """The offenders, whose sentences and fixes are those that are documented."""
    rules = {name: rest for name, *rest in rule_rows()}
    for offender in found.offenders:
        kind, text, fix = rules[offender.rule]
        assert (offender.kind, offender.text) == (kind, text)
        assert offender.fix == fix or offender.rule == "op-version"
    return sorted(
        (o.rule, f"{o.subgraph}:{o.op_index}" if o.op_index >= 0 else str(o.subgraph), o.op, o.tensor, o.layer)
        for o in found.offenders
    )


def _dead_layer(tensors: dict[str, Any], model: Any) -> None:
    model.buffers[tensors["dense/kernel"].buffer].data = np.zeros(24, np.uint8)
    tensors["net/dense/BiasAdd"].quantization.scale = [1e-40]


def _dynamic(tensors: dict[str, Any], _: Any) -> None:
    tensors[_POOL].shapeSignature = [-1, 2, 2, 3]


@pytest.mark.parametrize("name", CASES)
def test_audit_names_exactly_the_offenders_of_a_model(name: str) -> None:
    tflite, expected = CASES[name]
    assert _offenders(audit(tflite)) == sorted(expected)


@pytest.mark.parametrize("name", TARGET_CASES)
def test_audit_names_exactly_what_a_target_refuses(name: str) -> None:
    tflite, profile, expected = TARGET_CASES[name]
    assert _offenders(audit(tflite, profile)) == sorted(expected)


def test_constructed_models_break_every_rule() -> None:
    expected = [offenders for _, offenders in CASES.values()] + [offenders for *_, offenders in TARGET_CASES.values()]
    broken = {offender[0] for offenders in expected for offender in offenders}
    assert broken == {name for name, kind, _, _ in rule_rows() if kind not in ("note", "scheme")}


def test_audit_lets_the_scale_of_what_is_always_the_same_be() -> None:
    assert audit(models.edited(_dead_layer)).ready


def test_audit_names_cause_and_fix_when_a_version_is_above_the_ceiling() -> None:
    (offender,) = audit(models.one_op("EXP", [("INT8", 0.5, 0)] * 2, version=2), "edge_tpu").offenders
    assert "EXP version 2 is an integer exponential, known since TensorFlow 2.12.0" in offender.reason
    assert "softmax, sigmoid or tanh" in offender.fix


def test_audit_refuses_several_scales_when_the_scheme_has_one() -> None:
    scheme = QuantizationScheme(name="mine", per_axis_weights=False)
    assert _offenders(audit(models.sound(), scheme=scheme)) == [
        ("scheme-scales", "0:0", "CONV_2D", "conv/kernel", "conv")
    ]


def test_audit_refuses_4_bits_when_the_scheme_has_8() -> None:
    assert _offenders(audit(models.int4(), scheme=QuantizationScheme(name="mine"))) == [
        ("scheme-bits", "0:0", "FULLY_CONNECTED", "net/layer/kernel", "layer")
    ]
    assert audit(models.int4(), scheme=QuantizationScheme(name="mine", weight_bits=4)).ready


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
    assert _offenders(audit(models.quantized("conv/bias", scale=(0.063, 0.1, 0.2)))) == [
        ("bias-scale", "0:0", "CONV_2D", "conv/bias", "conv")
    ]
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
    header, row, rule = str(found).splitlines()
    assert header.split() == ["op", "name", "tensor", "layer", "rule", "reason;", "fix"]
    assert row.split()[:5] == ["0:1", "MAX_POOL_2D", _POOL, "pool", "dynamic-shape"]
    assert rule == "dynamic-shape: Every dimension of every tensor is known before run time."


def test_audit_notes_a_large_bias() -> None:
    found = audit(models.filled("dense/bias", 2**28 + 1, np.int32))
    assert found.ready
    assert [(note.rule, note.op_index, note.tensor) for note in found.notes] == [
        ("few-codes", 3, "net/dense/BiasAdd"),
        ("large-bias", 3, "dense/bias"),
    ]


def test_audit_notes_what_no_op_uses() -> None:
    found = audit(models.edited(_unused))
    assert found.ready
    assert [(note.rule, note.op, note.tensor, note.reason) for note in found.notes] == [
        ("unused", "unused", "", "op code EXP version 2"),
        ("unused", "unused", "left", "constant of 3 bytes"),
    ]


def _unused(_: dict[str, Any], model: Any) -> None:
    code, tensor, buffer = schema.OperatorCodeT(), schema.TensorT(), schema.BufferT()
    code.builtinCode = code.deprecatedBuiltinCode = schema.BuiltinOperator.EXP
    code.version = 2
    tensor.name, tensor.shape, tensor.type = "left", [3], schema.TensorType.INT8
    tensor.buffer, buffer.data = len(model.buffers), np.zeros(3, np.uint8)
    model.operatorCodes.append(code)
    model.buffers.append(buffer)
    model.subgraphs[0].tensors.append(tensor)
