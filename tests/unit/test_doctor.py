"""What doctor names of a job that could not run; nothing of it is run."""

import copy
import dataclasses
import json
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from components.targets.ethos_u import VelaOptions
from pipelines import doctor
from pipelines.configs import load_config
from pipelines.deployment import Deployment
from pipelines.doctor import Answer, Finding, Question, examine
from pipelines.job_spec import containers_of, tasks_of
from pipelines.runners import load_service

from object_store import object_store

Json = dict[str, Any]
pytestmark = pytest.mark.slow


@pytest.fixture(scope="module")
def compiled() -> Json:
    config = dataclasses.replace(
        load_config("digits"), root="gs://bucket/digits", deployment=Deployment(image="127.0.0.1:9/tfx-qat:0.1.0")
    )
    return load_service("vertex").compile_job(config)


@pytest.fixture(scope="module")
def store() -> Iterator[dict[str, str]]:
    with object_store() as running:
        running.make_bucket("bucket")
        running.put("bucket", "digits/examples/digits.tfrecord", b"some")
        yield running.environment


@pytest.fixture
def look(compiled: Json, store: dict[str, str], monkeypatch: pytest.MonkeyPatch) -> Callable[..., list[Finding]]:
    """Examines a copy of the job with something changed in it."""
    for name, value in store.items():
        monkeypatch.setenv(name, value)

    def examine_changed(change: Callable[[Json], None] = lambda job: None) -> list[Finding]:
        job = copy.deepcopy(compiled)
        change(job)
        return examine(job)

    return examine_changed


def _wrong(findings: list[Finding]) -> list[str]:
    return [finding.message for finding in findings if finding.level == "wrong"]


@pytest.mark.extended
def test_doctor_finds_nothing_wrong_when_all_is_there(look: Callable[..., list[Finding]]) -> None:
    findings = look()
    assert _wrong(findings) == []
    messages = "\n".join(finding.message for finding in findings)
    assert "spec: 14 containers for vertex" in messages
    assert "code: 18 executors and modules can be imported" in messages
    assert "versions: as compiled" in messages
    assert "root: gs://bucket/digits/artifacts can be written, read and cleared" in messages
    assert "examples: gs://bucket/digits/examples has 1 files" in messages
    assert "image: cannot tell whether 127.0.0.1:9/tfx-qat:0.1.0 exists: " in messages


def _break_much(job: Json) -> None:
    trainer = containers_of(job)["QuantizeTrainer"]
    trainer["args"] = [
        text.replace("quantize_trainer.Executor", "quantize_trainer.Missing") for text in trainer["args"]
    ]
    parameters = tasks_of(job)["QuantizeTrainer"]["inputs"]["parameters"]
    parameters["module"]["runtimeValue"]["constant"] = "my_company.tasks.cats"
    versions = json.loads(parameters["toolchain"]["runtimeValue"]["constant"]) | {"tensorflow": "1.15.0"}
    parameters["toolchain"]["runtimeValue"]["constant"] = json.dumps(versions)
    examples = tasks_of(job)["ImportExampleGen"]["inputs"]["parameters"]["input_base"]["runtimeValue"]
    examples["constant"] = "gs://bucket/nothing"
    compiler = tasks_of(job)["EdgeTPUCompiler"]["inputs"]["parameters"]["when_missing"]["runtimeValue"]
    compiler["constant"] = "fail"
    containers_of(job)["Pusher"]["image"] = "no tag"
    job["runtimeConfig"]["gcsOutputDirectory"] = "gs://no-such-bucket/digits"


@pytest.mark.extended
def test_doctor_names_everything_that_is_wrong(
    look: Callable[..., list[Finding]], monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setenv("PATH", str(tmp_path))  # no edgetpu_compiler
    findings = look(_break_much)
    wrong = "\n".join(_wrong(findings))
    assert "code: components.quantize_trainer.Missing cannot be imported in a clean process: AttributeError" in wrong
    assert "code: my_company.tasks.cats cannot be imported in a clean process: ModuleNotFoundError: No module" in wrong
    assert "root: gs://no-such-bucket/digits cannot be written" in wrong
    assert "examples: gs://bucket/nothing has no files; write them with `python -m pipelines examples`" in wrong
    assert "compiler: that of edge_tpu is not here, and when_missing='fail'" in wrong
    assert "image: 'no tag' is no image reference" in wrong
    assert len(_wrong(findings)) == 6
    (versions,) = [finding for finding in findings if "tensorflow 1.15.0, here" in finding.message]
    assert versions.level == "warning"


@pytest.mark.parametrize(
    ("text", "when_missing", "level", "message"),
    [
        ("echo 5.2.0", "fail", "ok", "that of ethos_u is here, 5.2.0"),
        ("exec /nowhere/python", "fail", "warning", "that of ethos_u is here but does not say its version"),
        ("", "fail", "wrong", "that of ethos_u is not here, and when_missing='fail'"),
        ("", "analyze", "warning", "that of ethos_u is not here; models will be analysed, not compiled"),
    ],
    ids=["there", "broken", "missing", "not needed"],
)
def test_doctor_says_what_becomes_of_models_for_ethos_u(
    tmp_path: Path, text: str, when_missing: str, level: str, message: str
) -> None:
    vela = _program(tmp_path / "vela", text) if text else tmp_path / "vela"
    options = VelaOptions(compiler=str(vela)).to_json()
    answers = doctor._ask([Question("compiler", f"ethos_u {options}")])
    task = {"target": "ethos_u", "when_missing": when_missing, "options": options}
    (finding,) = doctor._compiler_findings({"TargetCompiler": task}, answers)
    assert (finding.level, finding.message.partition(";")[0]) == (level, f"compiler: {message}".partition(";")[0])


def _program(path: Path, text: str) -> Path:
    path.write_text(f"#!/bin/sh\n{text}\n")
    path.chmod(0o755)
    return path


def _unknown_field(job: Json) -> None:
    job["pipelineSpec"]["rooot"] = {}


def _dangling_dependency(job: Json) -> None:
    tasks_of(job)["Transform"]["dependentTasks"].append("Nothing")


def _missing_component(job: Json) -> None:
    del job["pipelineSpec"]["components"]["Transform"]


def _missing_executor(job: Json) -> None:
    del job["pipelineSpec"]["deploymentSpec"]["executors"]["Transform_executor"]


def _missing_output(job: Json) -> None:
    del job["pipelineSpec"]["components"]["Transform"]["outputDefinitions"]["artifacts"]["transform_graph"]


def _no_deployment(job: Json) -> None:
    job["pipelineSpec"]["deploymentSpec"] = None


def _no_image(job: Json) -> None:
    del containers_of(job)["Transform"]["image"]


def _toolchain(job: Json) -> None:
    tasks_of(job)["Transform"]["inputs"]["parameters"]["toolchain"] = {"runtimeValue": {"constant": "<toolchain>"}}


def _push_destination(job: Json) -> None:
    destination = tasks_of(job)["Pusher"]["inputs"]["parameters"]["push_destination"]["runtimeValue"]
    destination["constant"] = "nowhere"


def _examples_elsewhere(job: Json) -> None:
    tasks_of(job)["ImportExampleGen"]["inputs"]["parameters"]["input_base"]["runtimeValue"]["constant"] = "/data"


def _s3(job: Json) -> None:
    job["runtimeConfig"]["gcsOutputDirectory"] = "s3://bucket/digits"


def _local_root(job: Json) -> None:
    job["runtimeConfig"]["gcsOutputDirectory"] = "/tmp/digits"


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (_unknown_field, 'no field named "rooot"'),
        (_dangling_dependency, "task Transform waits for Nothing, which is none"),
        (_missing_component, "task Transform refers to component Transform, which is not in the spec"),
        (_missing_executor, "Transform has the executor Transform_executor, which is not in the spec"),
        (_missing_output, "task QuantizeTrainer takes transform_graph of Transform, which has no such output"),
        (_no_deployment, "_executor, which is not in the spec; compile it again"),
        (_no_image, "task Transform has a container without an image; compile it again"),
        (_toolchain, "parameter toolchain of task Transform is no JSON object; compile it again"),
        (_push_destination, "parameter push_destination of task Pusher is no JSON object; compile it again"),
        (_examples_elsewhere, "examples '/data' is not in object storage"),
        (_s3, "root 's3://bucket/digits' is not in object storage that the containers can reach; expected gs://"),
        (_local_root, "root '/tmp/digits' is not in object storage"),
    ],
)
def test_doctor_names_what_is_wrong_with_the_spec_before_anything_else(
    look: Callable[..., list[Finding]], change: Callable[[Json], None], message: str
) -> None:
    findings = look(change)
    assert {finding.level for finding in findings} == {"wrong"}
    assert message in "\n".join(_wrong(findings))


def test_doctor_names_the_extra_when_its_package_is_missing(
    look: Callable[..., list[Finding]], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, "kfp.pipeline_spec", None)
    assert _wrong(look()) == [
        "spec: kfp-pipeline-spec is not installed: pip install 'tfx-qat[vertex]' or 'tfx-qat[kubeflow]'"
    ]


def test_clean_process_goes_on_after_a_module_that_ends_it(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "deadly.py").write_text("import os; os._exit(3)")
    (tmp_path / "quits.py").write_text("raise SystemExit('no licence')")
    (tmp_path / "noisy.py").write_text("print('[0, null, null]')")
    python = tmp_path / "python"
    code = f"import sys, runpy; sys.path.insert(0, {str(tmp_path)!r}); "
    code += "runpy.run_module('pipelines.probe', run_name='__main__')"
    python.write_text(f'#!/bin/sh\nexec {sys.executable} -I -c "{code}"\n')
    python.chmod(0o755)
    monkeypatch.setattr(doctor.sys, "executable", str(python))
    questions = [Question("import", name) for name in ("deadly", "json.decoder", "quits", "noisy", "deadly", "json.no")]
    deadly, decoder, quits, noisy, again, missing = doctor._ask(questions)
    assert deadly == again == Answer(None, "the process ended with status 3: ")
    assert decoder.value.endswith("json/decoder.py")
    assert quits.error == "SystemExit: no licence"
    assert noisy.error == ""
    assert missing.error.startswith("AttributeError: module 'json' has no attribute 'no'")
