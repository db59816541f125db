"""Verdicts of models from elsewhere: those beside the repository."""

import collections
import gzip
from pathlib import Path

import pytest

from components.quantization import audit

_EDGE_TPU = "edgetpu/models/"
_DECODER = {"custom-op": ["CUSTOM PosenetDecoderOp"], "float-edge": ["output"] * 4}
_DECODER |= {"float-tensor": ["CUSTOM PosenetDecoderOp"] * 4}
# The ops that offend, by rule, for the Edge TPU.
_EXPECTED: dict[str, dict[str, list[str]]] = {
    f"{_EDGE_TPU}deeplabv3_mnv2_dm05_pascal_quant.tflite": {},
    f"{_EDGE_TPU}deeplabv3_mnv2_dm05_pascal_quant_edgetpu.tflite": {},
    f"{_EDGE_TPU}keras_lstm_mnist_ptq.tflite": {},
    f"{_EDGE_TPU}keras_lstm_mnist_ptq_edgetpu.tflite": {},
    f"{_EDGE_TPU}mobilenet_v1_0.25_128_quant.tflite": {},
    f"{_EDGE_TPU}mobilenet_v1_0.25_128_quant_edgetpu.tflite": {},
    f"{_EDGE_TPU}mobilenet_v1_0.5_160_quant.tflite": {},
    f"{_EDGE_TPU}mobilenet_v1_0.5_160_quant_edgetpu.tflite": {},
    f"{_EDGE_TPU}posenet_mobilenet_v1_075_353_481_quant_decoder.tflite": _DECODER,
    f"{_EDGE_TPU}posenet_mobilenet_v1_075_353_481_quant_decoder_edgetpu.tflite": _DECODER,
    f"{_EDGE_TPU}posenet_mobilenet_v1_075_481_641_quant_decoder.tflite": _DECODER,
    f"{_EDGE_TPU}posenet_mobilenet_v1_075_481_641_quant_decoder_edgetpu.tflite": _DECODER,
    # A batch of unknown size: the input, the output and what each op computes.
    "models/mlperf_tiny/kws_ref_model.tflite": {"dynamic-shape": ["input", "output", *range(13)]},  # type: ignore[list-item]
    "models/mlperf_tiny/pretrainedResnet_quant.tflite": {"dynamic-shape": ["input", "output", *range(16)]},  # type: ignore[list-item]
}


@pytest.mark.parametrize("name", _EXPECTED)
def test_audit_names_exactly_the_offenders_of_a_published_model(name: str, shared: Path) -> None:
    found: dict[str, list[object]] = collections.defaultdict(list)
    for offender in audit((shared / name).read_bytes(), "edge_tpu").offenders:
        ops = offender.rule == "dynamic-shape" and offender.op_index >= 0
        found[offender.rule].append(offender.op_index if ops else offender.op)
    assert found == _EXPECTED[name]


def test_audit_refuses_compiled_models_when_no_target_brings_their_op(shared: Path) -> None:
    for path in sorted((shared / "edgetpu" / "models").glob("*_edgetpu.tflite")):
        first = audit(path.read_bytes()).offenders[0 if "posenet" not in path.name else 4]
        assert (first.rule, first.op) == ("custom-op", "CUSTOM edgetpu-custom-op")


def test_audit_names_every_float_tensor_of_a_published_float_model(shared: Path) -> None:
    found = audit((shared / "models" / "mlperf_tiny" / "pretrainedResnet.tflite").read_bytes())
    counts = collections.Counter(offender.rule for offender in found.offenders)
    # 9 convolutions and a Dense layer with weights and biases; inputs and outputs of 16 ops, 3 of which have two.
    assert counts == {"float-edge": 2, "float-constant": 20, "float-tensor": 35, "dynamic-shape": 18}
    assert not found.integer_only


def test_audit_knows_every_model_beside_the_repository(shared: Path) -> None:
    paths = {str(path.relative_to(shared)) for path in shared.rglob("*.tflite")}
    assert paths == {*_EXPECTED, "models/mlperf_tiny/pretrainedResnet.tflite"}


@pytest.mark.slow
def test_audit_finds_nothing_illegal_in_models_that_a_vendor_compiled(shared: Path) -> None:
    broken = {
        (path.name[:8], offender.rule, offender.op_index)
        for path in sorted((shared / "edgetpu" / "skeletons").glob("*.gz"))
        for offender in audit(gzip.decompress(path.read_bytes()), "edge_tpu").offenders
        if offender.kind not in ("integer", "shape")
    }
    # Of 239 models one has biases at the end of int32: channels whose weights are next to 0 lost theirs.
    assert broken == {
        ("a23609d9", "bias-range", 2),
        ("a23609d9", "bias-range", 9),
        ("a23609d9", "accumulator", 2),
        # A converter put QUANTIZE around it later: what its signature feeds, QUANTIZE writes over.
        ("05efb9f3", "signature", -1),
        # The compiler maps this layer, of a scale per channel; whether it computes it right nobody has told.
        ("c2a05a2e", "dense-scales", 102),
    }
