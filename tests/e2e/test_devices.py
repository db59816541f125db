"""One training for two targets, as a user runs it."""

import json
from pathlib import Path

import pytest

from components.quantization.contract.file_metadata import read_metadata
from pipelines.metadata import MetadataStore

from conftest_e2e import Run, run_digits

pytestmark = pytest.mark.long
_TARGETS = ("edge_tpu", "cpu")


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> Run:
    return run_digits(tmp_path_factory.mktemp("devices"), config="devices")


def test_run_pushes_a_model_for_each_target_behind_one_training(run: Run) -> None:
    assert run.status == 0, run.output
    components = [execution.component for execution in MetadataStore(str(run.metadata)).last_run("devices")]
    assert components.count("QuantizeTrainer") == 1
    assert {"Pusher-edge-tpu", "Pusher-cpu", "EdgeTPUCompiler-edge-tpu", "TargetCompiler-cpu"} <= set(components)
    for target in _TARGETS:
        (pushed,) = (run.root / "pushed" / target).glob("*/tflite")
        assert (run.root / "pushed" / target / "latest").exists()
        assert read_metadata(pushed.read_bytes())


def test_run_ends_with_one_table_of_both_targets(run: Run) -> None:
    rows = json.loads((run.root / "targets.json").read_text())["targets"]
    assert [row["target"] for row in rows] == list(_TARGETS)
    for row in rows:
        versions = [path.parent.name for path in (run.root / "pushed" / row["target"]).glob("*/tflite")]
        assert [row["pushed_version"]] == versions
        assert row["blessed"]
        assert row["drop"] == row["float_accuracy"] - row["integer_accuracy"]
        assert row["ops"] == row["ops_on_target"] > 0
        assert row["macs"] == row["macs_on_target"] > 0
        size = Path(run.root / "pushed" / row["target"] / row["pushed_version"] / "tflite").stat().st_size
        assert row["model_bytes"] == size
    assert rows[0]["float_accuracy"] == rows[1]["float_accuracy"]
    assert "macs_on_target is 1, predicted by static analysis" in " ".join(rows[0]["reasons"])
    for line in (run.root / "targets.md").read_text().splitlines()[2:4]:
        cells = [cell.strip() for cell in line.strip("|").split("|")]
        assert any(shown.split()[:3] == cells[:3] for shown in run.output.splitlines())
