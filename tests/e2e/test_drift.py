"""Spans of real digits under a scheduler with a gate on drift: the same digits in another order, then inverted ones."""

import json
import subprocess
from pathlib import Path

import numpy as np
import numpy.typing as npt
import pytest
import tensorflow as tf
from sklearn.datasets import load_digits

from components.retraining.ledger import Ledger
from pipelines.metadata import MetadataStore

from conftest_e2e import command

_LIMIT_S = 3600
_COUNT = 600


def _write(base: Path, span: int, pixels: npt.NDArray[np.float64], labels: npt.NDArray[np.int64]) -> None:
    directory = base / "data" / f"span-{span:03d}"
    directory.mkdir(parents=True)
    with tf.io.TFRecordWriter(str(directory / "part.tfrecord")) as writer:
        for row, label in zip(pixels, labels, strict=True):
            example = tf.train.Example()
            example.features.feature["image"].float_list.value.extend(row)
            example.features.feature["label"].int64_list.value.append(label)
            writer.write(example.SerializeToString())
    (directory / "_SUCCESS").touch()


def _schedule(base: Path, *options: str) -> str:
    spans = f"{base}/data/span-{{SPAN:3}}/*.tfrecord"
    gates = ["--gate", "drift <= 0.1", "--gate", "drift of image <= 0.01"]
    asked = command("schedule", *options, "stream", "--root", str(base), "--spans", spans, *gates)
    done = subprocess.run(asked, check=True, capture_output=True, text=True, timeout=_LIMIT_S)
    return done.stdout


@pytest.mark.long
def test_retraining_takes_digits_in_another_order_and_trains_nothing_on_inverted_ones(tmp_path: Path) -> None:
    pixels, labels = load_digits(return_X_y=True)
    chosen = np.random.default_rng(0).permutation(len(labels))[:_COUNT]
    for span, order, change in ((1, chosen, 0), (2, chosen[::-1], 0), (3, chosen, 16)):
        _write(tmp_path, span, np.abs(change - pixels[order]), labels[order])
    _schedule(tmp_path)
    entries = Ledger(tmp_path / "spans").entries()
    first, second, third = (entries[span] for span in (1, 2, 3))
    assert first.state == "pushed"
    assert "skipped: drift <= 0.1 (there is no last blessed model yet)" in first.reason
    assert first.report["drift"] is None
    assert second.state in ("pushed", "refused")
    assert "holds: drift <= 0.1" in second.reason
    assert second.report["drift"] < 0.02
    assert (third.state, third.attempt, third.blameless) == ("quarantined", 1, False)
    assert third.reason.startswith("DriftGate: the examples have drifted: fails: drift <= 0.1 (drift is ")
    assert "drift of image <= 0.01" in third.reason
    assert third.report["drift"] > 0.1
    store = MetadataStore(str(tmp_path / "metadata.sqlite"))
    executions = {one.component: one for one in store.last_run("stream")}
    assert not {"Transform", "QuantizeTrainer", "Pusher"} & set(executions)
    assert not executions["DriftGate"].complete
    (published,) = executions["SpanDrift"].outputs["drift"]
    assert published.properties["drift"] == pytest.approx(third.report["drift"], abs=1e-6)  # as SQLite has it
    assert published.properties["reason_codes"] == "drift"
    run = store.client.get_context_by_type_and_name("pipeline_run", third.report["run"])
    assert run.custom_properties["decision_reason"].string_value == third.reason
    shown = _schedule(tmp_path, "--status")
    assert f"drift {third.report['drift']:.4f}" in shown
    file, metadata = f"{first.report['verdict']['pushed_to']}/tflite", str(tmp_path / "metadata.sqlite")
    lineage = command("lineage", file, "--metadata", metadata, "--json")
    found = json.loads(subprocess.run(lineage, check=True, capture_output=True, text=True, timeout=_LIMIT_S).stdout)
    assert "no_baseline" in [code for one in found["judgements"] for code in one["codes"]]
