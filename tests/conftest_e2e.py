"""Runs of the digits pipeline, on this machine as a user runs it, and as a job of Vertex."""

import copy
import dataclasses
import json
import os
import re
import shutil
import subprocess
import sys
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest

from pipelines.metadata import MetadataStore

from object_store import object_store
from pipeline_service import JobRun, PipelineService, container_environment

_REPOSITORY = Path(__file__).parent.parent


@dataclasses.dataclass(frozen=True)
class Run:
    """One run: where it kept things, its exit status, what it printed, and ML Metadata as it was when it ended."""

    root: Path
    status: int
    output: str
    metadata: Path

    @property
    def pushed(self) -> list[Path]:
        """The pushed files."""
        return sorted((self.root / "pushed").glob("*/tflite"))


def command(*arguments: str) -> list[str]:
    """The command line of the pipelines."""
    return [sys.executable, "-m", "pipelines", *arguments]


def run_digits(root: Path, *arguments: str, config: str = "digits") -> Run:
    """Runs the digits pipeline, or that of another config, and waits for its end."""
    result = subprocess.run(
        command("run", config, "--root", str(root), *arguments),
        capture_output=True,
        text=True,
        check=False,
        timeout=600,
    )
    metadata = root / f"metadata.{time.time_ns()}.sqlite"
    if (root / "metadata.sqlite").exists():
        shutil.copy(root / "metadata.sqlite", metadata)
    return Run(root, result.returncode, result.stdout + result.stderr, metadata)


# Each from the one before.
MODELS = (
    ("QuantizeTrainer", "float_model"),
    ("QuantizeTrainer", "model"),
    ("TFLiteIntConverter", "tflite_model"),
    ("EdgeTPUCompiler", "compiled_model"),
)
# What TFX writes of its own.
_TFX = {"name", "state", "tfx_version", "pipeline_name", "producer_component", "is_external"}


def local_properties(run: Run, component: str, key: str) -> dict[str, Any]:
    """What ML Metadata has of an artifact of a local run."""
    executions = MetadataStore(str(run.metadata)).last_run("digits")
    (execution,) = [execution for execution in executions if execution.component == component]
    return {name: value for name, value in execution.outputs[key][0].properties.items() if name not in _TFX}


def vertex_properties(run: JobRun, component: str, key: str) -> dict[str, Any]:
    """What Vertex's ML Metadata is told of an artifact."""
    return {name: value for name, value in run.output(component, key)["metadata"].items() if name not in _TFX}


def stable(properties: dict[str, Any], component: str) -> dict[str, Any]:
    """Those that are the same in each run: the bytes of a SavedModel and where it lies are not.

    A .tflite file names its run and its parent; `content_sha256` is that of the rest.
    """
    left_out = {"float_model_uri", "sha256", "parent_sha256", "examples_fingerprint"}  # the last has times of files
    if component in ("TFLiteIntConverter", "EdgeTPUCompiler"):
        assert "content_sha256" in properties
        left_out.add("size_bytes")
    return {name: value for name, value in properties.items() if name not in left_out}


def documents_of_report(root: Path, page: str) -> dict[str, Any]:
    """The documents of a report, each equal to the artifact's file, as each of the page's numbers is to its source."""
    (made,) = root.glob("artifacts/QuantizedEvaluator/blessing/*/report.json")
    held: dict[str, Any] = json.loads(made.read_text())["documents"]
    for name, file in (
        ("verdict", "QuantizedEvaluator/blessing/*/verdict.json"),
        ("smoke_test", "EdgeInfraValidator/blessing/*/verdict.json"),
        ("measurements", "QuantizedEvaluator/evaluation/*/measurements.json"),
        ("paired", "QuantizedEvaluator/evaluation/*/paired.json"),
        ("flips", "QuantizedEvaluator/evaluation/*/flips.json"),
        ("attribution", "TFLiteIntConverter/tflite_model/*/attribution.json"),
        ("contract", "TFLiteIntConverter/tflite_model/*/Format-Serving/io_contract.json"),
        ("compile_report", "EdgeTPUCompiler/compiled_model/*/compile_report.json"),
    ):
        (path,) = root.glob(f"artifacts/{file}")
        assert held[name] == json.loads(path.read_text()), name
    numbers = re.findall(r'<data value="([^"]+)" data-source="([^"]+)">', page)
    assert len(numbers) > 300
    for exact, source in numbers:
        value: Any = held
        for part in source.split("/")[1:]:
            name = part.replace("~1", "/").replace("~0", "~")
            value = value[int(name)] if isinstance(value, list) else value[name]
        assert json.loads(exact) == value, source
    return held


@pytest.fixture(scope="session")
def local_run(tmp_path_factory: pytest.TempPathFactory) -> Run:
    """A first run by LocalDagRunner."""
    return run_digits(tmp_path_factory.mktemp("local"), "--runner", "local")


@dataclasses.dataclass(frozen=True)
class VertexRun:
    """Runs of compiled jobs.

    Attributes:
      job: The compiled job.
      first: Its first run, in which QuantizeTrainer's node goes away once.
      second: The same job again.
      before: The first task of another pipeline, with good examples.
      failed: The whole of that pipeline, when its examples are no TFRecords any more.
      kubeflow: The first task of the digits, compiled for Kubeflow and run as there.
      objects: All objects in the bucket, by name.
      doctor: What doctor said of the job in the image's environment, before it ran.
      logs: Directory with a log for each process.
    """

    job: dict[str, Any]
    first: JobRun
    second: JobRun
    before: JobRun
    failed: JobRun
    kubeflow: JobRun
    objects: dict[str, bytes]
    doctor: str
    logs: Path

    @property
    def errors(self) -> str:
        """What the failed tasks said."""
        return "\n".join(f"{name}: {run.error}" for name, run in self.first.tasks.items() if run.error)


@pytest.fixture(scope="session")
def image_environment(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The virtual environment of the container image, made by the image's script: a wheel, and no repository."""
    if made := os.environ.get("TFX_QAT_IMAGE_ENVIRONMENT"):
        return Path(made)
    venv = tmp_path_factory.mktemp("image") / "venv"
    environment = {**os.environ, "PATH": f"{_REPOSITORY}/.uv/bin:{os.environ['PATH']}", "PYTHON": sys.executable}
    for part in ("dependencies", "project"):
        subprocess.run(
            ["infra/image/install.sh", part, str(venv)], cwd=_REPOSITORY, env=environment, check=True, timeout=900
        )
    return venv


def _only_example_gen(job: dict[str, Any]) -> dict[str, Any]:
    job = copy.deepcopy(job)
    dag = job["pipelineSpec"]["components"]["tfx-dag"]["dag"]
    dag["tasks"] = {"ImportExampleGen": dag["tasks"]["ImportExampleGen"]}
    return job


@pytest.fixture(scope="session")
def vertex_run(image_environment: Path, tmp_path_factory: pytest.TempPathFactory) -> VertexRun:
    """Compiles the digits for Vertex and runs the job, with object storage as its root."""
    directory = tmp_path_factory.mktemp("vertex")
    with object_store() as store:
        environment = container_environment(image_environment, directory, store.environment)

        def read(uri: str) -> bytes | None:
            return store.objects("bucket").get(uri.removeprefix("gs://bucket/"))

        def cli(*arguments: str) -> str:
            arguments = ("python", "-m", "pipelines", *arguments)
            result = subprocess.run(
                arguments, env=environment, cwd=directory, check=False, capture_output=True, text=True, timeout=300
            )
            assert result.returncode == 0, result.stdout + result.stderr
            return result.stdout

        def compiled(root: str, runner: str = "vertex", *options: str) -> dict[str, Any]:
            image = "europe-docker.pkg.dev/project/images/tfx-qat:0.1.0"
            cli("compile", "digits", "--runner", runner, "--root", root, "--image", image, "-o", "job.json", *options)
            job: dict[str, Any] = json.loads((directory / "job.json").read_text())
            return job

        store.make_bucket("bucket")
        cli("examples", "digits", "--root", "gs://bucket/digits")
        small = compiled("gs://bucket/kubeflow", "kubeflow", "--examples", "gs://bucket/digits/examples")
        job = compiled("gs://bucket/digits")  # the file that doctor will read
        broken = json.loads(json.dumps(job).replace("gs://bucket/digits", "gs://bucket/broken"))

        def examples_change() -> tuple[JobRun, JobRun]:
            service = PipelineService(environment, directory / "failed", read)
            file = "examples/digits.tfrecord"
            store.put("bucket", f"broken/{file}", store.objects("bucket")[f"digits/{file}"])
            before = service.run(_only_example_gen(broken))
            store.put("bucket", f"broken/{file}", b"no TFRecord")
            return before, service.run(broken)

        on_kubeflow = PipelineService(environment, directory / "kubeflow", read, is_kubeflow=True)
        with ThreadPoolExecutor() as pool:
            changed = pool.submit(examples_change)
            kubeflow = pool.submit(on_kubeflow.run, _only_example_gen(small))
            doctor = cli("doctor", "job.json")
            service = PipelineService(environment, directory / "logs", read)
            first = service.run(job, preempt={"QuantizeTrainer": "Assets written"})
            second = service.run(job)
        return VertexRun(
            job=job,
            first=first,
            second=second,
            before=changed.result()[0],
            failed=changed.result()[1],
            kubeflow=kubeflow.result(),
            objects=store.objects("bucket"),
            doctor=doctor,
            logs=directory,
        )
