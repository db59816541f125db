"""The digits for Ethos-U, from examples to what is pushed, compiled by the real Vela."""

import json
import os
from pathlib import Path
from typing import Any
from unittest import mock

import pytest

from components.targets import load_target
from components.targets._compiled_file import compiled_parts
from components.targets.ethos_u import VARIABLE
from pipelines.metadata import MetadataStore

from conftest_e2e import Run, run_digits
from vela_program import require_equal_to_csv, require_vela

pytestmark = pytest.mark.long


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> Run:
    gates = ("--require-compiled", "--gate", "macs_on_target >= 1")
    with mock.patch.dict(os.environ, {VARIABLE: require_vela()}):
        return run_digits(tmp_path_factory.mktemp("ethos_u"), "--target", "ethos_u", *gates)


def _artifact(run: Run, component: str, key: str) -> Path:
    """Where a component's output is."""
    executions = MetadataStore(str(run.metadata)).last_run("digits")
    (execution,) = [execution for execution in executions if execution.component == component]
    return Path(execution.outputs[key][0].uri)


def _report(run: Run) -> dict[str, Any]:
    report: dict[str, Any] = json.loads((_compiled(run) / "compile_report.json").read_text())
    return report


def _compiled(run: Run) -> Path:
    return _artifact(run, "TargetCompiler", "compiled_model")


def test_run_blesses_and_pushes_what_vela_made(run: Run) -> None:
    assert run.status == 0, run.output
    (pushed,) = run.pushed
    content = pushed.read_bytes()
    assert compiled_parts(content, "ethos-u") == 1
    converted = _artifact(run, "TFLiteIntConverter", "tflite_model") / "Format-Serving" / "tflite"
    with mock.patch.dict(os.environ, {VARIABLE: require_vela()}):
        assert content == load_target("ethos_u").compile(converted.read_bytes(), "fail").tflite


def test_run_has_velas_figures_in_its_report(run: Run) -> None:
    report = _report(run)
    assert report["compiled"]
    assert report["on_cpu"] == {"ops": 0, "macs": 0, "parameters": 0}
    require_equal_to_csv(report, _compiled(run) / "compiler")


def test_run_holds_gates_by_velas_report_and_says_so(run: Run) -> None:
    tool = _report(run)["tool"]
    assert tool.startswith("Vela ")
    assert f"holds: macs_on_target >= 1 (macs_on_target is 1, by {tool})" in " ".join(run.output.split())
