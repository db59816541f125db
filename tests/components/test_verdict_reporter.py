"""What the exit handler reports of runs that end well, badly, and before there is a verdict."""

import json
import logging
from pathlib import Path
from typing import Any

import pytest
from google.protobuf import struct_pb2
from tfx.types import standard_artifacts

from components.verdict_reporter import RecorderExecutor, ReporterExecutor

_REASONS = ["fails: accuracy >= 0.999 (accuracy is 0.9887)"]


def _record(directory: Path, *, blessed: bool, runs: bool = True) -> None:
    blessing, pushed = standard_artifacts.ModelBlessing(), standard_artifacts.PushedModel()
    blessing.set_int_custom_property("blessed", int(blessed))
    blessing.set_string_custom_property("reasons", json.dumps(_REASONS))
    pushed.set_int_custom_property("pushed", int(blessed and runs))
    if blessed and runs:
        pushed.set_string_custom_property("pushed_destination", "gs://bucket/pushed/7")
    infra_blessing = standard_artifacts.InfraBlessing()
    infra_blessing.set_int_custom_property("blessed", int(runs))
    smoke = [
        "holds: file: 9 bytes",
        *([] if runs else ["fails: run: the process that ran the model was ended by SIGSEGV"]),
    ]
    infra_blessing.set_string_custom_property("reasons", json.dumps(smoke))
    properties = {"reports_uri": str(directory), "run_id": "run-7"}
    given = {"blessing": [blessing], "infra_blessing": [infra_blessing], "pushed_model": [pushed]}
    RecorderExecutor().Do(given, {}, properties)


def _report(directory: Path, status: dict[str, Any], run_id: str = "run-7") -> dict[str, Any]:
    properties = {"reports_uri": str(directory), "run_id": run_id, "final_status": json.dumps(status)}
    ReporterExecutor().Do({}, {}, properties)
    report: dict[str, Any] = json.loads((directory / f"{run_id}.json").read_text())
    return report


def test_reporter_tells_the_verdict_when_the_run_ends_well(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    _record(tmp_path, blessed=True)
    with caplog.at_level(logging.INFO):
        status = {"state": "SUCCEEDED", "pipelineJobResourceName": "projects/1/pipelineJobs/7", "error": None}
        report = _report(tmp_path, status)
    verdict = {"blessed": True, "reasons": _REASONS, "pushed_to": "gs://bucket/pushed/7"}
    expected = {
        "run": "run-7",
        "job": "projects/1/pipelineJobs/7",
        "state": "SUCCEEDED",
        "error": "",
        "verdict": verdict,
    }
    assert report == expected
    assert "run run-7 SUCCEEDED; blessed, pushed to gs://bucket/pushed/7; fails: accuracy" in caplog.text


def test_reporter_tells_what_the_smoke_test_found_when_the_model_does_not_run(tmp_path: Path) -> None:
    _record(tmp_path, blessed=True, runs=False)
    report = _report(tmp_path, {"state": "SUCCEEDED"})
    found = "fails: run: the process that ran the model was ended by SIGSEGV"
    assert report["verdict"] == {"blessed": False, "reasons": [*_REASONS, found], "pushed_to": ""}


def test_reporter_tells_the_reasons_when_the_model_is_not_blessed(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    _record(tmp_path, blessed=False)
    with caplog.at_level(logging.INFO):
        report = _report(tmp_path, {"state": "SUCCEEDED"})
    assert report["verdict"] == {"blessed": False, "reasons": _REASONS, "pushed_to": ""}
    assert "not blessed, not pushed; fails: accuracy >= 0.999" in caplog.text


def test_reporter_tells_the_error_when_the_run_failed_before_a_verdict(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    report = _report(tmp_path, {"state": "FAILED", "error": {"code": 9, "message": "task Transform failed"}})
    assert (report["state"], report["error"], report["verdict"]) == ("FAILED", "task Transform failed", None)
    (record,) = [record for record in caplog.records if record.name == "components.verdict_reporter"]
    assert record.levelno == logging.ERROR


def test_reporter_takes_the_structure_that_kubeflow_gives(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    status = struct_pb2.Struct()
    status.update({"state": "COMPLETE", "pipelineJobResourceName": "digits 7", "error": {}})
    with caplog.at_level(logging.INFO):
        ReporterExecutor().Do({}, {}, {"reports_uri": str(tmp_path), "run_id": "run-7", "final_status": status})
    report = json.loads((tmp_path / "run-7.json").read_text())
    assert (report["job"], report["state"], report["error"]) == ("digits 7", "COMPLETE", "")
    (record,) = [record for record in caplog.records if record.name == "components.verdict_reporter"]
    assert record.levelno == logging.INFO


@pytest.mark.parametrize("run_id", ["../escape", "a/b", "", "{{$.pipeline_job_uuid}}", "..", "a b"])
def test_reporter_writes_nothing_when_the_run_id_is_none(tmp_path: Path, run_id: str) -> None:
    directory = tmp_path / "reports"
    with pytest.raises(ValueError, match="is no id of a run"):
        _report(directory, {"state": "SUCCEEDED"}, run_id)
    assert not list(tmp_path.iterdir())
