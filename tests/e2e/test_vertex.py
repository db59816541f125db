"""What a user of Vertex relies on: the compiled job, run as the service runs it, does what a local run does.

Every task is a process of the container image's environment, which the image's own script made, with object storage as
the pipeline root.
"""

import gzip
import hashlib
import itertools
import json
import re
from collections.abc import Iterator
from pathlib import Path

import pytest
import tensorflow as tf

from components.delivery.manifest import Manifest
from components.quantization.contract.file_metadata import without_metadata

from conftest_e2e import MODELS, Run, VertexRun, local_properties, stable, vertex_properties
from object_store import ACCESS_TOKEN
from pipeline_service import JobRun

pytestmark = pytest.mark.long


def test_vertex_run_pushes_the_same_model_as_a_local_run(local_run: Run, vertex_run: VertexRun) -> None:
    assert vertex_run.first.state == "SUCCEEDED", vertex_run.errors
    version, pushed = _pushed(vertex_run)
    local = local_run.pushed[0]
    assert without_metadata(pushed["tflite"]) == without_metadata(local.read_bytes())
    assert set(pushed) == {path.name for path in local.parent.iterdir()}
    manifests = [pushed["manifest.json"].decode(), (local.parent / "manifest.json").read_text()]
    assert len({Manifest.from_json(text).model_sha256 for text in manifests}) == 1
    assert vertex_run.objects["digits/pushed/latest"].decode() == f"{version}\n"


def _pushed(vertex_run: VertexRun) -> tuple[str, dict[str, bytes]]:
    """The only version that was pushed, and its files."""
    found: dict[str, dict[str, bytes]] = {}
    for name, content in vertex_run.objects.items():
        if match := re.fullmatch(r"digits/pushed/([0-9a-f]{12})/(.+)", name):
            found.setdefault(match[1], {})[match[2]] = content
    ((version, files),) = found.items()
    return version, files


def test_vertex_run_says_the_same_verdict_as_a_local_run(local_run: Run, vertex_run: VertexRun) -> None:
    report = json.loads(vertex_run.objects[f"digits/reports/{vertex_run.first.id}.json"])
    assert (report["run"], report["state"], report["error"]) == (vertex_run.first.id, "SUCCEEDED", "")
    local = local_properties(local_run, "QuantizedEvaluator", "blessing")
    assert report["verdict"]["blessed"] is (local["blessed"] == 1)
    assert report["verdict"]["reasons"] == json.loads(local["reasons"])
    assert report["verdict"]["pushed_to"] == f"gs://bucket/digits/pushed/{_pushed(vertex_run)[0]}"


@pytest.mark.parametrize(("component", "key"), MODELS)
def test_vertex_run_records_the_same_facts_as_a_local_run(
    local_run: Run, vertex_run: VertexRun, component: str, key: str
) -> None:
    local = local_properties(local_run, component, key)
    vertex = vertex_properties(vertex_run.first, component, key)
    assert set(local) == set(vertex)
    assert {"scheme", "tfx_qat_version", "tensorflow_version", "sha256", "parent_sha256", "kind"} <= set(local)
    assert {"seed", "task_sha256", "training_examples_sha256", "schema_sha256", "transform_sha256"} <= set(local)
    ours, theirs = stable(local, component), stable(vertex, component)
    # SQLite's ML Metadata keeps six digits.
    is_equal = {name: theirs[name] == pytest.approx(value, abs=1e-6) for name, value in ours.items()}
    assert not {name: (ours[name], theirs[name]) for name in ours if not is_equal[name]}
    uri = vertex_run.first.output(component, key)["uri"].removeprefix("gs://bucket/")
    facts = json.loads(vertex_run.objects[f"{uri}/facts.json"])
    assert {name: facts[name] for name in vertex} == vertex


def test_vertex_run_keeps_the_chain_of_hashes(vertex_run: VertexRun) -> None:
    chain = [vertex_properties(vertex_run.first, *place) for place in MODELS]
    for parent, child in itertools.pairwise(chain):
        assert child["parent_sha256"] == parent["sha256"]
    assert hashlib.sha256(_pushed(vertex_run)[1]["tflite"]).hexdigest() == chain[-1]["sha256"]
    pushed = vertex_properties(vertex_run.first, "Pusher", "pushed_model")
    assert pushed["sha256"] == pushed["parent_sha256"] == chain[-1]["sha256"]
    blessing = vertex_properties(vertex_run.first, "QuantizedEvaluator", "blessing")
    assert [blessing[f"{name}_sha256"] for name in ("model", "compiled_model")] == [one["sha256"] for one in chain[-2:]]


def test_vertex_run_tries_a_lost_task_again_and_leaves_nothing_of_the_first_try(vertex_run: VertexRun) -> None:
    attempts = {name: run.attempts for name, run in vertex_run.first.tasks.items()}
    assert attempts.pop("QuantizeTrainer") == 2  # its first node went away
    assert set(attempts.values()) == {0, 1}
    assert [name for name, tries in attempts.items() if not tries] == ["tfx-dag"]
    assert not [name for name in vertex_run.objects if ".partial" in name or ".temp" in name]


def test_vertex_run_gives_the_report_as_a_page_that_the_console_shows(vertex_run: VertexRun) -> None:
    page = vertex_run.first.output("ReportPage", "page")
    assert page["type"] == {"schemaTitle": "system.HTML", "schemaVersion": "0.0.1"}
    blessing = vertex_run.first.output("QuantizedEvaluator", "blessing")
    shown, made = (
        vertex_run.objects[uri.removeprefix("gs://bucket/")] for uri in (page["uri"], f"{blessing['uri']}/report.html")
    )
    assert shown == made
    assert b"<title>digits on edge_tpu: " in shown


def test_second_vertex_run_takes_all_but_its_report_from_the_cache(vertex_run: VertexRun) -> None:
    states = {name: run.state for name, run in vertex_run.second.tasks.items()}
    ran = {name for name, state in states.items() if state != "SKIPPED"}
    assert ran == {"VerdictRecorder", "RunReporter", "tfx-dag"}
    first, second = (
        json.loads(vertex_run.objects[f"digits/reports/{run.id}.json"]) for run in (vertex_run.first, vertex_run.second)
    )
    assert second["verdict"] == first["verdict"]
    assert second["run"] != first["run"]


def test_blessed_vertex_model_is_what_a_later_run_resolves(vertex_run: VertexRun) -> None:
    """TFX's resolver finds the model by its name in Vertex's ML Metadata, which the blessing must have."""
    blessing = vertex_run.first.output("QuantizedEvaluator", "blessing")["metadata"]
    assert blessing["current_model_id"] == vertex_run.first.output("TFLiteIntConverter", "tflite_model")["name"]
    assert blessing["baseline_model_id"] == vertex_run.first.output("QuantizeTrainer", "float_model")["name"]


def test_vertex_run_with_other_examples_misses_the_cache_is_tried_again_and_reported(vertex_run: VertexRun) -> None:
    assert vertex_run.before.tasks["ImportExampleGen"].state == "SUCCEEDED"  # and is not used when the data changes
    tasks = vertex_run.failed.tasks
    assert vertex_run.failed.state == "FAILED"
    assert (tasks["ImportExampleGen"].state, tasks["ImportExampleGen"].attempts) == ("FAILED", 2)
    assert {run.state for name, run in tasks.items() if name not in ("ImportExampleGen", "tfx-dag", "RunReporter")} == {
        "CANCELLED"
    }
    report = json.loads(vertex_run.objects[f"broken/reports/{vertex_run.failed.id}.json"])
    assert (report["state"], report["verdict"]) == ("FAILED", None)
    assert "ImportExampleGen" in report["error"]


def _examples(content: bytes) -> Iterator[bytes]:
    """The tf.Examples of a compressed TFRecord file, each with its features in order, which protobuf does not keep."""
    records = gzip.decompress(content)
    while records:
        length = int.from_bytes(records[:8], "little")  # then 4 bytes of checksum, and 4 behind the record
        yield tf.train.Example.FromString(records[12 : 12 + length]).SerializeToString(deterministic=True)
        records = records[16 + length :]


def test_kubeflow_run_makes_the_same_examples_without_a_driver_and_is_reported(vertex_run: VertexRun) -> None:
    run = vertex_run.kubeflow
    assert run.state == "SUCCEEDED", run.tasks["ImportExampleGen"].error

    def examples(of: JobRun) -> dict[str, list[bytes]]:
        uri = of.output("ImportExampleGen", "examples")["uri"].removeprefix("gs://bucket/")
        found = {name: content for name, content in vertex_run.objects.items() if name.startswith(f"{uri}/Split-")}
        return {name.removeprefix(uri): sorted(_examples(content)) for name, content in found.items()}

    assert set(examples(run)) == {f"/Split-{split}/data_tfrecord-00000-of-00001.gz" for split in ("train", "eval")}
    assert examples(run) == examples(vertex_run.first)
    report = json.loads(vertex_run.objects[f"kubeflow/reports/{run.id}.json"])
    assert (report["state"], report["verdict"], report["job"]) == ("COMPLETE", None, f"a run of {run.id}")


def test_doctor_finds_nothing_wrong_in_the_image_but_what_is_not_there(vertex_run: VertexRun) -> None:
    lines = vertex_run.doctor.splitlines()
    levels = {line.split()[1].rstrip(":"): line.split()[0] for line in lines}
    for what in ("spec", "code", "versions", "root", "examples", "push_dir"):
        assert levels[what] == "ok", vertex_run.doctor
    assert "working copy" not in vertex_run.doctor  # the wheel, not the repository
    assert [line for line in lines if line.startswith("wrong")] == []


def test_vertex_run_tells_no_secret(vertex_run: VertexRun) -> None:
    texts = {**vertex_run.objects, "job": json.dumps(vertex_run.job).encode()}
    texts |= {str(path): path.read_bytes() for path in Path(vertex_run.logs).rglob("log")}
    assert len(texts) > 50
    assert [name for name, content in texts.items() if ACCESS_TOKEN.encode() in content] == []
