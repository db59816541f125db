"""The report of a model out of artifacts: each document is that of its file, and no fault of it stops a model."""

import json
import logging
from pathlib import Path

import pytest
from tfx import types
from tfx.types import standard_artifacts

from components import model_report
from components.report.facts import FILES

from report_documents import documents

_KINDS = {
    "evaluation": standard_artifacts.ModelEvaluation,
    "infra_blessing": standard_artifacts.InfraBlessing,
    "float_model": standard_artifacts.Model,
    "tflite_model": standard_artifacts.Model,
    "compiled_model": standard_artifacts.Model,
    "model_run": standard_artifacts.ModelRun,
    "examples": standard_artifacts.Examples,
    "drift": standard_artifacts.ExampleAnomalies,
}


@pytest.fixture
def artifacts(tmp_path: Path) -> dict[str, types.Artifact]:
    found = {}
    for key, kind in _KINDS.items():
        found[key] = kind()
        found[key].uri = str(tmp_path / key)
    for name, (key, file) in FILES.items():
        path = tmp_path / key / file
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(json.dumps(documents()[name]))
    for loop, history in documents()["histories"].items():
        (tmp_path / "model_run" / loop).mkdir()
        (tmp_path / "model_run" / loop / "history.json").write_text(json.dumps(history))
    (tmp_path / "tflite_model" / "Format-Serving" / "tflite").write_bytes(b"no model")
    found["examples"].span = 7
    found["examples"].set_string_custom_property("input_fingerprint", "split:train,num_files:1")
    found["examples"].set_string_custom_property("spans", "[5, 7]")
    return found


def test_report_holds_the_documents_of_the_artifacts(artifacts: dict[str, types.Artifact], tmp_path: Path) -> None:
    verdict = documents()["verdict"]
    files = model_report.report_files(artifacts, "edge_tpu", json.dumps(verdict))
    assert sorted(files) == ["report.html", "report.json"]
    held = json.loads(files["report.json"])["documents"]
    expected = {name: one for name, one in documents().items() if name not in ("weights", "examples")}
    assert {name: held[name] for name in expected} == expected
    assert held["examples"] == {
        "uri": artifacts["examples"].uri,
        "span": 7,
        "version": 0,
        "input_fingerprint": "split:train,num_files:1",
        "spans": "[5, 7]",
    }
    # The file is no model: what is read from it is missing, and the page is there.
    assert "weights" not in held
    assert "All ops in order" in files["report.html"]
    (tmp_path / "read").mkdir()
    (tmp_path / "read" / "report.json").write_text(files["report.json"])
    assert model_report.read_report(str(tmp_path / "read")).documents == held


def test_report_says_that_the_order_of_ops_is_missing_when_no_compiler_was_asked_and_the_file_is_no_model(
    artifacts: dict[str, types.Artifact],
) -> None:
    del artifacts["compiled_model"]
    page = model_report.report_files(artifacts, "edge_tpu", json.dumps(documents()["verdict"]))["report.html"]
    assert "The order of the ops is not recorded." in page


def test_report_is_left_out_when_the_page_cannot_be_made(
    artifacts: dict[str, types.Artifact], monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    def broken(_facts: object) -> str:
        raise ZeroDivisionError("a picture")

    monkeypatch.setattr(model_report, "render", broken)
    with caplog.at_level(logging.ERROR):
        assert model_report.report_files(artifacts, "edge_tpu", json.dumps({"blessed": True, "reasons": []})) == {}
    assert "there is no report of the model" in caplog.text


def test_report_is_not_read_when_there_is_none(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="no report was made of this model"):
        model_report.read_report(str(tmp_path))
