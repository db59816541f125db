"""Figures of a report: counted by hand."""

import dataclasses
import json

import jsonschema
import numpy as np
import pytest
import tf_keras

from components.quantization import convert
from components.quantization.conversion import flatbuffer
from components.quantization.dataclass_schema import of_dataclass
from components.targets import (
    CompileReport,
    Latency,
    LayerFigures,
    Mapping,
    OpMapping,
    Share,
    _figures,
    analysis,
    load_target,
    report_schema,
    with_figures,
)
from components.targets.edge_tpu.edits import edit
from components.targets.edge_tpu.log import STATUSES

from contract_cases import image_model
from edge_tpu_graphs import Net

_SPECIFIC = "Operation not supported"
_AFTER = "More than one subgraph is not supported"


def _mapping(on_target: list[bool], tflite: bytes) -> Mapping:
    ops = flatbuffer.read_subgraphs(tflite)[0].ops
    statuses = ["Mapped to Edge TPU" if there else _SPECIFIC for there in on_target]
    return Mapping(
        target="edge_tpu",
        ops=tuple(
            OpMapping(index=op.index, op=op.name, on_target=there, status=status, reason="" if there else "a rule")
            for op, there, status in zip(ops, on_target, statuses, strict=True)
        ),
    )


def test_shares_split_the_whole_of_the_model() -> None:
    tflite = image_model()
    graph = flatbuffer.read_subgraphs(tflite)[0]
    everything = analysis(load_target("edge_tpu").inspect(tflite), tflite)
    assert everything.on_target is not None
    parameters = sum(
        len(tensor.values.ravel()) for tensor in graph.tensors if tensor.scale and tensor.values is not None
    )
    assert everything.on_target.parameters == parameters
    for first_on_cpu in range(1, len(graph.ops)):
        split = [op.index < first_on_cpu for op in graph.ops]
        report = analysis(_mapping(split, tflite), tflite)
        assert report.on_target is not None
        assert report.on_cpu is not None
        for figure in ("ops", "macs", "parameters"):
            total = getattr(report.on_target, figure) + getattr(report.on_cpu, figure)
            assert total == getattr(everything.on_target, figure)


def test_first_breaking_op_is_behind_the_target_not_before_it() -> None:
    tflite = image_model()
    ops = flatbuffer.read_subgraphs(tflite)[0].ops
    assert len(ops) >= 4
    split = [False, True, False, *[False] * (len(ops) - 3)]
    breaking = analysis(_mapping(split, tflite), tflite, edit).first_breaking_op
    assert breaking is not None
    assert (breaking.index, breaking.op, breaking.reason) == (2, ops[2].name, "a rule")
    assert breaking.edit
    only_before = analysis(_mapping([False, *[True] * (len(ops) - 1)], tflite), tflite).first_breaking_op
    assert only_before is not None
    assert only_before.index == 0
    assert analysis(_mapping([True] * len(ops), tflite), tflite).first_breaking_op is None


@pytest.mark.slow
def test_first_breaking_op_has_its_keras_layer_and_an_edit() -> None:
    layers = tf_keras.layers
    image = tf_keras.Input((8, 8, 3), name="image")
    stem = layers.Conv2D(4, 3, name="stem")(image)
    odd = layers.LeakyReLU(0.1, name="odd_activation")(stem)
    head = layers.Dense(3, activation="softmax", name="head")(layers.Flatten()(odd))
    tflite = convert(tf_keras.Model(image, head), representative_dataset=[np.ones((4, 8, 8, 3), np.float32)])
    model = load_target("edge_tpu").compile(tflite, options='{"compiler": "no such compiler"}')
    report = model.report
    assert (model.tflite, report.compiled, report.subgraphs) == (tflite, False, 1)
    assert report.memory.cached_bytes
    breaking = report.first_breaking_op
    assert breaking is not None
    assert (breaking.op, breaking.layer) == ("LEAKY_RELU", "odd_activation")
    assert "ReLU6" in breaking.edit
    assert report.on_target is not None
    assert report.on_target.macs == 6 * 6 * 4 * 3 * 3 * 3  # the stem, without padding
    assert report.on_target.parameters == 4 * 3 * 3 * 3 + 4
    graph = flatbuffer.read_subgraphs(tflite)[0]
    assert _figures.layer_of(graph.ops[-1], graph) == "head"


def test_layer_of_an_op_that_only_changes_a_type_is_that_which_it_reads() -> None:
    net = Net()
    source, floats, absolute = (net.tensor(1, 3) for _ in range(3))
    net.op("DEQUANTIZE", [source], [floats])
    net.op("ABS", [source], [absolute])
    names = ("model/head/Softmax", "StatefulPartitionedCall:0", "StatefulPartitionedCall:1")
    for tensor, name in zip(net._graph.tensors, names, strict=True):
        tensor.name = name
    graph = flatbuffer.read_subgraphs(net.tflite())[0]
    assert [_figures.layer_of(op, graph) for op in graph.ops] == ["head", ""]


def test_every_status_but_mapped_has_an_edit() -> None:
    assert edit("CONV_2D", STATUSES[0]) == ""
    assert all(edit("CONV_2D", status) for status in STATUSES[1:])
    assert edit("CONV_2D", "a status of the future") == ""


def test_report_of_any_target_keeps_the_schema() -> None:
    report = CompileReport(
        target="abacus",
        compiled=True,
        tool="beads 1.0",
        ops=(),
        on_target=Share(ops=3, macs=10, parameters=4),
        latency=Latency(ms=1.5, kind="estimated", basis="beads 1.0, 500 MHz"),
        measurements={"cycles": 1200.0, "sram_bytes": 4096.0, "flash_bytes": 8192.0},
        layers=(LayerFigures(name="conv", op="CONV_2D", measurements={"cycles": 1000.0}),),
    )
    jsonschema.validate(json.loads(report.to_json()), report_schema())
    assert report.on_cpu == Share(ops=0)
    with pytest.raises(jsonschema.ValidationError):
        jsonschema.validate({**json.loads(report.to_json()), "compiled": "yes"}, report_schema())
    with pytest.raises(ValueError, match="not JSON compliant"):
        dataclasses.replace(report, measurements={"cycles": float("nan")}).to_json()


def test_figures_are_those_of_the_model_that_is_given() -> None:
    tflite = image_model()
    mapping = load_target("edge_tpu").inspect(tflite)
    report = analysis(mapping)
    assert report.on_target == Share(ops=len(mapping.ops))
    assert with_figures(report, mapping, tflite) == analysis(mapping, tflite)


def test_schema_raises_when_a_field_has_no_json_form() -> None:
    made = dataclasses.make_dataclass("Made", [("when", complex)])
    with pytest.raises(TypeError, match="no JSON schema for"):
        of_dataclass(made)
