"""Compiled jobs: against goldens, against the services' own schemas, and refused when something is wrong."""

import dataclasses
import importlib.util
import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from google.protobuf import json_format
from kfp.pipeline_spec import pipeline_spec_pb2

from components.verdict_reporter import RUN_ID_PLACEHOLDER
from pipelines.beam_runners.direct import Direct
from pipelines.config import PipelineConfig
from pipelines.configs import load_config
from pipelines.deployment import Deployment, Resources
from pipelines.job_spec import containers_of, read_job, tasks_of, uri_problem, write_whole
from pipelines.runners import load_runner, load_service

_GOLDENS = Path(__file__).parent.parent / "goldens"
_IMAGE = "europe-docker.pkg.dev/project/images/tfx-qat:0.1.0"
# What differs between versions of TFX and of this code.
_VOLATILE = ("toolchain", "module_sha256", "compiler", "custom_config")
_ACCOUNTS = {"vertex": "trainer@project.iam.gserviceaccount.com", "kubeflow": "pipeline-runner"}
_ACCELERATORS = {"vertex": "NVIDIA_TESLA_T4", "kubeflow": "nvidia.com/gpu"}


def _config(runner: str, **deployment: Any) -> PipelineConfig:
    settings: dict[str, Any] = {
        "image": _IMAGE,
        "images": {"EdgeTPUCompiler": f"{_IMAGE}-edgetpu"},
        "resources": Resources(cpu_cores=2, memory_gb=8),
        "component_resources": {
            "QuantizeTrainer": Resources(
                cpu_cores=8, memory_gb=32, accelerator=_ACCELERATORS[runner], accelerator_count=1
            )
        },
        "service_account": _ACCOUNTS[runner],
        "labels": {"team": "vision", "cost-center": "42"},
        "failure_policy": "fast" if runner == "vertex" else "slow",
        "retries": 2,
        "retry_backoff_s": 30,
    }
    return dataclasses.replace(
        load_config("digits"), root="gs://bucket/digits", deployment=Deployment(**{**settings, **deployment})
    )


@pytest.fixture(scope="module", params=["vertex", "kubeflow"])
def compiled(request: pytest.FixtureRequest) -> tuple[str, dict[str, Any]]:
    runner = request.param
    return runner, load_service(runner).compile_job(_config(runner))


def _stable(job: dict[str, Any]) -> dict[str, Any]:
    job = json.loads(json.dumps(job))
    job["labels"] = {key: value for key, value in job["labels"].items() if key not in ("tfx_version", "tfx_py_version")}
    job["pipelineSpec"]["sdkVersion"] = "tfx"
    for task in tasks_of(job).values():
        for key, value in task.get("inputs", {}).get("parameters", {}).items():
            if key in _VOLATILE:
                value["runtimeValue"]["constant"] = f"<{key}>"
    return job


def test_compile_job_makes_the_golden(compiled: tuple[str, dict[str, Any]], request: pytest.FixtureRequest) -> None:
    runner, job = compiled
    golden = _GOLDENS / f"digits.{runner}.json"
    if request.config.getoption("--update-goldens"):
        golden.write_text(json.dumps(_stable(job), indent=1, sort_keys=True) + "\n")
    assert _stable(job) == json.loads(golden.read_text())


def test_compile_job_makes_what_the_service_takes(compiled: tuple[str, dict[str, Any]]) -> None:
    runner, job = compiled
    json_format.ParseDict(job["pipelineSpec"], pipeline_spec_pb2.PipelineSpec())
    if runner == "vertex":
        from google.cloud.aiplatform_v1.types import PipelineJob

        # Unknown fields are errors.
        assert PipelineJob.from_json(json.dumps(job)).service_account == _ACCOUNTS["vertex"]


def test_compile_job_puts_settings_on_every_container(compiled: tuple[str, dict[str, Any]]) -> None:
    runner, job = compiled
    containers = containers_of(job)
    assert len(containers) == 14
    assert {spec["image"] for name, spec in containers.items() if name != "EdgeTPUCompiler"} == {_IMAGE}
    assert containers["EdgeTPUCompiler"]["image"] == f"{_IMAGE}-edgetpu"
    trainer = containers.pop("QuantizeTrainer")["resources"]
    assert trainer["accelerator"] == {"type": _ACCELERATORS[runner], "count": "1"}
    assert {json.dumps(spec["resources"]) for spec in containers.values()} == {'{"cpuLimit": 2.0, "memoryLimit": 8.0}'}
    assert {task["retryPolicy"]["maxRetryCount"] for name, task in tasks_of(job).items() if name != "tfx-dag"} == {2}


def test_compile_job_never_caches_what_reports(compiled: tuple[str, dict[str, Any]]) -> None:
    runner, job = compiled
    cached = {name for name, task in tasks_of(job).items() if task.get("cachingOptions", {}).get("enableCache")}
    # Without a driver, the cache would not notice other examples.
    without_driver = {"ImportExampleGen"} if runner == "kubeflow" else set()
    assert set(tasks_of(job)) - cached == {"VerdictRecorder", "RunReporter", "tfx-dag", *without_driver}
    reporter = tasks_of(job)["RunReporter"]
    assert reporter["triggerPolicy"] == {"strategy": "ALL_UPSTREAM_TASKS_COMPLETED"}
    assert reporter["inputs"]["parameters"]["run_id"]["runtimeValue"]["constant"] == RUN_ID_PLACEHOLDER


def test_compile_job_makes_the_report_an_artifact_that_the_services_show(compiled: tuple[str, dict[str, Any]]) -> None:
    _, job = compiled
    task = tasks_of(job)["ReportPage"]
    (page,) = job["pipelineSpec"]["components"]["ReportPage"]["outputDefinitions"]["artifacts"].values()
    # As kfp's own compiler writes the type of an Output[HTML].
    assert page["artifactType"] == {"schemaTitle": "system.HTML", "schemaVersion": "0.0.1"}
    if importlib.util.find_spec("kfp.dsl"):
        from kfp import dsl

        assert page["artifactType"] == {
            "schemaTitle": dsl.HTML.schema_title,
            "schemaVersion": dsl.HTML.schema_version,
        }
    producer = task["inputs"]["artifacts"]["blessing"]["taskOutputArtifact"]
    assert (producer["producerTask"], producer["outputArtifactKey"]) == ("QuantizedEvaluator", "blessing")
    assert task["dependentTasks"] == ["QuantizedEvaluator"]
    container = containers_of(job)["ReportPage"]
    assert container["command"] == [
        "python",
        "-m",
        "components.report_page",
        "{{$.inputs.artifacts['blessing'].uri}}",
        "{{$.outputs.artifacts['page'].uri}}",
    ]


@pytest.mark.parametrize("page", ["<p>the page</p>", ""])
def test_report_page_is_the_file_itself_at_the_uri_of_the_artifact(tmp_path: Path, page: str) -> None:
    from components.report_page import main

    (tmp_path / "blessing").mkdir()
    if page:
        (tmp_path / "blessing" / "report.html").write_text(page)
    for _ in range(2):  # a retry finds what was there before
        main([str(tmp_path / "blessing"), str(tmp_path / "page")])
    assert (page or "There is no report of this model") in (tmp_path / "page").read_text()


def test_compile_job_caches_nothing_when_caching_is_off() -> None:
    job = load_service("vertex").compile_job(_config("vertex", cache=False))
    assert not [name for name, task in tasks_of(job).items() if "cachingOptions" in task]


def test_compile_job_does_not_cache_an_evaluation_when_it_has_an_override_that_ends() -> None:
    config = _config("vertex").with_overrides(("accuracy >= 0.97",), because="a demo", until="2999-12-31", by="ann")
    tasks = tasks_of(load_service("vertex").compile_job(config))
    assert "cachingOptions" not in tasks["QuantizedEvaluator"]
    assert tasks["TFLiteIntConverter"]["cachingOptions"] == {"enableCache": True}


def test_compile_job_carries_nothing_of_the_environment(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("AWS_SECRET_ACCESS_KEY", "GOOGLE_APPLICATION_CREDENTIALS", "GOOGLE_AUTH_TOKEN_FOR_TESTING"):
        monkeypatch.setenv(name, "do-not-tell-anyone")
    for runner in ("vertex", "kubeflow"):
        service = load_service(runner)
        job = service.compile_job(_config(runner))
        for text in (json.dumps(job), service.package(job)):
            assert "do-not-tell-anyone" not in text
            assert len(Path.home().parts) < 2 or str(Path.home()) not in text
            assert str(Path.cwd()) not in text


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"root": "runs/digits"}, r"root 'runs/digits' is not in object storage .*expected gs://bucket/path"),
        ({"root": "s3://bucket/x"}, "root 's3://bucket/x' is not in object storage"),
        ({"root": "gs://bucket/../other"}, r"leads out of itself by '\.\.'"),
        ({"root": "gs://bucket/$(reboot)"}, "is not in object storage"),
        ({"root": "gs://bucket/{{$.inputs}}"}, "is not in object storage"),
        ({"push_dir": "gs://key:secret@bucket/x"}, "push_dir carries credentials"),
        ({"examples_dir": "/data"}, "examples '/data' is not in object storage"),
        ({"label_key": "{{$.pipeline_job_name}}"}, "label_key, weight_key or slices name {{"),
        ({"beam": Direct(further_args=("--x={{$.inputs.parameters['y']}}",))}, "marks placeholders of the service"),
        ({"deployment": Deployment()}, "no image; set deployment.image or pass --image"),
        (
            {"deployment": Deployment(image=_IMAGE, images={"Trainer": _IMAGE})},
            "the deployment names Trainer, no components; there are ImportExampleGen, ",
        ),
        (
            {"deployment": Deployment(image=_IMAGE, service_account="x; reboot")},
            "service_account 'x; reboot' is no Google service account",
        ),
    ],
)
def test_compile_job_names_the_mistake_when_the_config_is_wrong(change: dict[str, Any], message: str) -> None:
    config = dataclasses.replace(_config("vertex"), **change)
    with pytest.raises(ValueError, match=message) as caught:
        load_service("vertex").compile_job(config)
    assert "secret" not in str(caught.value)


def test_compile_job_names_the_extra_when_its_package_is_missing(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "kfp", None)
    with pytest.raises(ValueError, match=r"kfp-pipeline-spec is not installed; pip install 'tfx-qat\[vertex\]'"):
        load_service("vertex").compile_job(_config("vertex"))


def test_compile_job_refuses_a_failure_policy_that_kubeflow_has_not() -> None:
    with pytest.raises(ValueError, match="only Vertex has it"):
        load_service("kubeflow").compile_job(_config("kubeflow", failure_policy="fast"))


@pytest.mark.parametrize(
    ("runner", "accelerator", "expected"),
    [
        ("vertex", "nvidia.com/gpu", "Vertex's names, such as "),
        ("kubeflow", "NVIDIA_L4", "a resource of the cluster's"),
    ],
)
def test_compile_job_refuses_the_other_services_accelerators(runner: str, accelerator: str, expected: str) -> None:
    one = Resources(accelerator=accelerator, accelerator_count=1)
    config = _config(runner, resources=one, component_resources={"QuantizeTrainer": one})
    message = f"accelerators of resources '{accelerator}', QuantizeTrainer '{accelerator}': expected {expected}"
    with pytest.raises(ValueError, match=message):
        load_service(runner).compile_job(config)


@pytest.mark.parametrize("name", ["../escape", "Digits", "a b", "", "a/b", "-a", "a;b", "{{$}}", "9a", "a" * 64])
def test_config_refuses_a_name_that_is_no_plain_word(name: str) -> None:
    with pytest.raises(ValueError, match="lowercase letters, digits and '-'"):
        dataclasses.replace(load_config("digits"), name=name)


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"image": "no tag"}, "image 'no tag' is no image reference"),
        ({"image": "registry/name"}, "no image reference with a tag or digest"),
        ({"images": {"A": "x:1;reboot"}}, "'x:1;reboot' is no image reference"),
        ({"labels": {"Team": "x"}}, "label 'Team'='x'"),
        ({"labels": {"team": "a/b"}}, "label 'team'='a/b'"),
        ({"labels": {"tfx_version": "1"}}, "label 'tfx_version' .those that begin with 'tfx_' are not yours"),
        ({"labels": {f"a{i}": "" for i in range(61)}}, "61 labels .at most 60"),
        ({"failure_policy": "stop"}, "failure_policy='stop' .one of slow, fast"),
        ({"retries": -1, "retry_backoff_s": 0}, r"retries=-1 .*; retry_backoff_s=0"),
    ],
)
def test_deployment_names_the_mistake(settings: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        Deployment(**settings)


@pytest.mark.parametrize(
    "reference",
    ["tfx-qat:0.1.0", "localhost:5000/a/b:x", "gcr.io/p/i@sha256:" + "0" * 64, "europe-docker.pkg.dev/p/r/i:v1.2_3"],
)
def test_deployment_takes_image_references(reference: str) -> None:
    assert Deployment(image=reference).image == reference


@pytest.mark.parametrize(
    "settings",
    [
        {"cpu_cores": -1},
        {"memory_gb": float("nan")},
        {"accelerator": "{{$}}", "accelerator_count": 1},
        {"accelerator": "NVIDIA_TESLA_T4"},
        {"accelerator_count": 1},
    ],
)
def test_resources_refuse_what_cannot_be(settings: dict[str, Any]) -> None:
    with pytest.raises(ValueError, match=r"expected 0 or more|give both or neither|expected a name such as"):
        Resources(**settings)


def test_uri_problem_accepts_what_the_service_can_reach() -> None:
    assert uri_problem("root", "s3://my-bucket/a/b_c/d=1", ("gs", "s3")) == ""
    assert uri_problem("root", "gs://my-bucket", ("gs",)) == ""


def test_loaders_say_what_to_use_when_the_runner_is_of_the_other_kind() -> None:
    with pytest.raises(ValueError, match="vertex runs nothing here; use `python -m pipelines compile`"):
        load_runner("vertex")
    with pytest.raises(ValueError, match="local runs on this machine; use `python -m pipelines run --runner local`"):
        load_service("local")


_JOB = {
    "pipelineSpec": {"root": {"dag": {"tasks": {"a": {}}}}, "components": {}},
    "runtimeConfig": {"gcsOutputDirectory": "gs://b/x"},
}


@pytest.mark.parametrize(
    "content",
    [
        "",
        "[]",
        "{}",
        "no json",
        '{"pipelineSpec": {"root": {}}}',
        json.dumps({**_JOB, "labels": None}),
        json.dumps({**_JOB, "runtimeConfig": None}),
        json.dumps({**_JOB, "runtimeConfig": {"gcsOutputDirectory": 5}}),
        json.dumps({**_JOB, "pipelineSpec": {**_JOB["pipelineSpec"], "components": {"x": 1}}}),
    ],
)
def test_read_job_refuses_what_is_no_compiled_job(tmp_path: Path, content: str) -> None:
    (tmp_path / "good.json").write_text(json.dumps(_JOB))
    assert read_job(tmp_path / "good.json") == _JOB
    (tmp_path / "job.json").write_text(content)
    with pytest.raises(
        ValueError, match="is no compiled pipeline job; make one with `python -m pipelines compile ... -o <name>.json`"
    ):
        read_job(tmp_path / "job.json")


def test_write_whole_leaves_nothing_when_the_file_cannot_be_written(tmp_path: Path) -> None:
    (tmp_path / "taken").mkdir()
    for path in (tmp_path / "taken", Path("/proc/nothing/job.json")):
        with pytest.raises(ValueError, match="cannot be written: .*; choose another --output"):
            write_whole(path, "text")
    assert [path.name for path in tmp_path.iterdir()] == ["taken"]


def test_compile_leaves_no_file_when_the_config_is_wrong(tmp_path: Path) -> None:
    output = tmp_path / "job.json"
    command = [sys.executable, "-m", "pipelines", "compile", "digits", "--runner", "vertex", "-o", str(output)]
    result = subprocess.run(command, capture_output=True, text=True, check=False)
    assert result.returncode == 2
    assert "no image; set deployment.image or pass --image" in result.stderr
    assert not list(tmp_path.iterdir())


@pytest.mark.extended
@pytest.mark.parametrize(("runner", "name"), [("vertex", "job.json"), ("kubeflow", "job.yaml")])
def test_compile_writes_the_job(tmp_path: Path, runner: str, name: str) -> None:
    output = tmp_path / "new" / name
    options = ["--root", "gs://bucket/digits", "--image", _IMAGE, "--gate", "accuracy >= 0.5"]
    command = [sys.executable, "-m", "pipelines", "compile", "digits", "--runner", runner, "-o", str(output), *options]
    result = subprocess.run(command, capture_output=True, text=True, check=False)
    assert result.returncode == 0, result.stderr
    assert f"14 containers for {runner}, root gs://bucket/digits" in result.stdout
    assert result.stderr == ""
    assert "accuracy >= 0.5" in output.read_text()
    assert [path.name for path in output.parent.iterdir()] == [name]
