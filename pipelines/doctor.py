"""Whether a compiled job could run with what is installed here: looked at, not run."""

import concurrent.futures
import itertools
import json
import os
import subprocess
import sys
import tempfile
from collections.abc import Iterator, Mapping
from typing import Any, Literal, NamedTuple

from pipelines.deployment import is_image
from pipelines.job_spec import RUNNER_LABEL, containers_of, tasks_of, uri_problem
from pipelines.registry import image_exists, split_reference
from pipelines.runners import service_of
from pipelines.training_machines import programs_of

# Imports take seconds, object storage without access is given up after retries.
_TIMEOUT_S = 180


class Finding(NamedTuple):
    """One thing that was looked at.

    Attributes:
      level: "ok"; "warning" for what may be meant so; "wrong" for what keeps the job from running.
      message: What was seen, and how to mend it.
    """

    level: Literal["ok", "warning", "wrong"]
    message: str


class Question(NamedTuple):
    """One question to a clean process; see pipelines/probe.py."""

    kind: str
    argument: str


class Answer(NamedTuple):
    """What it said; `error` is empty if all went well."""

    value: Any
    error: str


def examine(job: Mapping[str, Any]) -> list[Finding]:
    """Looks at a compiled job: spec, executors and user code, versions, images, root, compiler. Changes nothing.

    Args:
      job: The job as `compile` wrote it.

    Returns:
      What was found, in this order.
    """
    broken = _spec_problems(job)
    if broken:
        return [Finding("wrong", f"spec: {problem}") for problem in broken]
    parameters = _parameters(job)
    code = sorted({*_executors(job), *_user_modules(parameters)})
    code_questions = [Question("versions", ""), *(Question("import", path) for path in code)]
    compilers = [
        Question("compiler", f"{task['target']} {task.get('options', '')}")
        for task in parameters.values()
        if "when_missing" in task
    ]
    directories = _directories(job, parameters)
    with concurrent.futures.ThreadPoolExecutor() as pool:
        storage = pool.submit(_ask, list(directories))
        images = pool.map(_image_finding, sorted(_images(job)))
        answers = _ask([*code_questions, *compilers])
        return [
            Finding("ok", f"spec: {len(containers_of(job))} containers for {job.get('labels', {}).get(RUNNER_LABEL)}"),
            *_code_findings(code_questions, answers),
            *_version_findings(answers[0], parameters),
            *images,
            *_storage_findings(directories, storage.result()),
            *_compiler_findings(parameters, answers[len(code_questions) :]),
        ]


def _spec_problems(job: Mapping[str, Any]) -> list[str]:
    """What is wrong with the spec itself, by its protocol buffers and its references."""
    try:
        from google.protobuf import json_format
        from kfp.pipeline_spec import pipeline_spec_pb2
    except ImportError:
        return ["kfp-pipeline-spec is not installed: pip install 'tfx-qat[vertex]' or 'tfx-qat[kubeflow]'"]
    spec = job["pipelineSpec"]
    try:
        json_format.ParseDict(spec, pipeline_spec_pb2.PipelineSpec())
        json_format.ParseDict(spec.get("deploymentSpec") or {}, pipeline_spec_pb2.PipelineDeploymentConfig())
        containers, tasks = containers_of(job), tasks_of(job)
        programs = {name: programs_of(container) for name, container in containers.items()}
        schemes = service_of(job).SCHEMES
    except (json_format.ParseError, ValueError, KeyError, TypeError, AttributeError) as error:
        return [f"{_first_line(error)}; compile it again"]
    problems = [
        f"task {name} has a container without an image"
        for name, container in containers.items()
        if not all(one.get("image") for one in (container, *programs[name]))
    ]
    for name, task in tasks.items():
        waits = [other for other in task.get("dependentTasks", []) if other not in tasks]
        problems += [f"task {name} waits for {other}, which is none" for other in waits]
        for source in task.get("inputs", {}).get("artifacts", {}).values():
            producer, key = (
                source.get("taskOutputArtifact", {}).get(field, "") for field in ("producerTask", "outputArtifactKey")
            )
            component = tasks.get(producer, {}).get("componentRef", {}).get("name", "")
            outputs = spec["components"].get(component, {}).get("outputDefinitions", {})
            if "taskOutputArtifact" in source and key not in outputs.get("artifacts", {}):
                problems.append(f"task {name} takes {key} of {producer}, which has no such output")
    parameters = _parameters(job)
    for name, values in parameters.items():
        for key in ("toolchain", "push_destination"):
            if not isinstance(_json(values.get(key, "{}")), dict):
                problems.append(f"parameter {key} of task {name} is no JSON object")
    if not problems:
        directories = _directories(job, parameters)
        problems += filter(None, (uri_problem(what, asked.argument, schemes) for asked, what in directories.items()))
    return [f"{problem}; compile it again" for problem in problems]


def _first_line(error: Exception) -> str:
    return str(error).split("\n")[0]


def _json(text: str) -> Any:
    try:
        return json.loads(text)
    except ValueError:
        return None


def _parameters(job: Mapping[str, Any]) -> dict[str, dict[str, str]]:
    """The constant parameters of each task that are text."""
    parameters: dict[str, dict[str, str]] = {}
    for name, task in tasks_of(job).items():
        inputs = task.get("inputs", {}).get("parameters", {})
        values = {key: value.get("runtimeValue", {}).get("constant") for key, value in inputs.items()}
        parameters[name] = {key: value for key, value in values.items() if isinstance(value, str)}
    return parameters


def _images(job: Mapping[str, Any]) -> set[str]:
    containers = containers_of(job).values()
    return {one["image"] for container in containers for one in (container, *programs_of(container))}


def _executors(job: Mapping[str, Any]) -> Iterator[str]:
    """Dotted paths of all that containers start: the module of each command and the executor classes."""
    for container in itertools.chain.from_iterable(map(programs_of, containers_of(job).values())):
        for part in (container, container.get("lifecycle", {}).get("preCacheCheck", {})):
            words = [*part.get("command", []), *part.get("args", [])]
            for flag, path in itertools.pairwise(words):
                if flag in ("-m", "--executor_class_path"):
                    yield path


def _user_modules(parameters: Mapping[str, Mapping[str, str]]) -> Iterator[str]:
    for values in parameters.values():
        yield from (values[key] for key in ("module", "preprocessing_fn") if values.get(key))


def _directories(job: Mapping[str, Any], parameters: Mapping[str, Mapping[str, str]]) -> dict[Question, str]:
    """What is asked of object storage, and what each directory is called."""
    questions = {Question("writable", job["runtimeConfig"]["gcsOutputDirectory"]): "root"}
    for values in parameters.values():
        if values.get("input_base"):
            questions[Question("files", values["input_base"])] = "examples"
        filesystem = _json(values.get("push_destination", "{}")).get("filesystem", {})
        if pushed := filesystem.get("base_directory") or filesystem.get("baseDirectory"):
            questions[Question("writable", pushed)] = "push_dir"
    return questions


def _ask(questions: list[Question]) -> list[Answer]:
    """Asks a clean process; one that dies of a question is started anew for the questions after it."""
    answers: list[Answer] = []
    while len(answers) < len(questions):
        rest = questions[len(answers) :]
        with tempfile.TemporaryDirectory() as elsewhere:
            try:
                process = subprocess.run(
                    [sys.executable, "-I", "-m", "pipelines.probe"],
                    input=json.dumps(rest),
                    capture_output=True,
                    text=True,
                    cwd=elsewhere,
                    env={**os.environ, "TF_CPP_MIN_LOG_LEVEL": "3"},
                    timeout=_TIMEOUT_S,
                    check=False,
                )
                output, end = process.stdout, f"the process ended with status {process.returncode}: "
                end += (process.stderr.strip().splitlines() or [""])[-1]
            except subprocess.TimeoutExpired as error:
                said = error.stdout or b""
                output = said if isinstance(said, str) else said.decode()
                end = f"no answer in {_TIMEOUT_S} s"
        got = [Answer(value, error) for _, value, error in map(json.loads, output.splitlines())]
        answers += got
        if len(got) < len(rest):
            answers.append(Answer(None, end))
    return answers


def _code_findings(questions: list[Question], answers: list[Answer]) -> Iterator[Finding]:
    asked = [
        (question, answer) for question, answer in zip(questions, answers, strict=False) if question.kind == "import"
    ]
    for question, answer in asked:
        if answer.error:
            yield Finding(
                "wrong",
                f"code: {question.argument} cannot be imported in a clean process: {answer.error}; install the package"
                f" that holds it here ({sys.executable}) and in the image",
            )
    if not any(answer.error for _, answer in asked):
        yield Finding("ok", f"code: {len(asked)} executors and modules can be imported in a clean process")


def _version_findings(answer: Answer, parameters: Mapping[str, Mapping[str, str]]) -> Iterator[Finding]:
    if answer.error:
        yield Finding(
            "wrong", f"versions: tfx-qat is not installed in {sys.executable} ({answer.error}); pip install it"
        )
        return
    here: dict[str, str] = answer.value
    compiled = {
        version for values in parameters.values() for version in json.loads(values.get("toolchain") or "{}").items()
    }
    differing = [f"{name} {version}, here {here.get(name)}" for name, version in compiled if version != here.get(name)]
    if differing:
        yield Finding(
            "warning",
            f"versions: compiled with {'; '.join(sorted(differing))}; compile in the image, or results come from the"
            " cache of another version",
        )
    else:
        yield Finding(
            "ok", f"versions: as compiled, TFX {here['tfx']}, TensorFlow {here['tensorflow']}, Python {here['python']}"
        )
    if here["editable"]:
        yield Finding(
            "warning", f"versions: tfx-qat is {here['editable']}, a working copy; run doctor inside the image as well"
        )


def _image_finding(image: str) -> Finding:
    if not is_image(image):
        return Finding("wrong", f"image: {image!r} is no image reference with a tag or digest")
    if split_reference(image)[2] == "latest":
        return Finding("warning", f"image: {image} is another one tomorrow; give a version as its tag, or a digest")
    try:
        if image_exists(image):
            return Finding("ok", f"image: {image} is in its registry")
        return Finding("wrong", f"image: {image} is not in its registry; build it with infra/Dockerfile and push it")
    except OSError as error:
        return Finding("warning", f"image: cannot tell whether {image} exists: {error}")


def _storage_findings(directories: Mapping[Question, str], answers: list[Answer]) -> Iterator[Finding]:
    for (question, what), answer in zip(directories.items(), answers, strict=True):
        where = f"{what}: {question.argument}"
        if answer.error:
            does = "written" if question.kind == "writable" else "read"
            yield Finding("wrong", f"{where} cannot be {does}: {answer.error}; check its name and the credentials")
        elif question.kind == "writable":
            yield Finding("ok", f"{where} can be written, read and cleared")
        elif answer.value:
            yield Finding("ok", f"{where} has {answer.value} files")
        else:
            yield Finding("wrong", f"{where} has no files; write them with `python -m pipelines examples`")


def _compiler_findings(parameters: Mapping[str, Mapping[str, str]], answers: list[Answer]) -> Iterator[Finding]:
    tasks = [values for values in parameters.values() if "when_missing" in values]
    for values, answer in zip(tasks, answers, strict=True):
        target = values["target"]
        if answer.error:
            yield Finding("wrong", f"compiler: {target}: {answer.error}")
        elif answer.value.startswith("unknown"):
            yield Finding(
                "warning",
                f"compiler: that of {target} is here but does not say its version; see whether it starts at all",
            )
        elif answer.value:
            yield Finding("ok", f"compiler: that of {target} is here, {answer.value.split()[0]:.16}")
        elif values["when_missing"] == "fail":
            yield Finding(
                "wrong", f"compiler: that of {target} is not here, and when_missing='fail'; build the image with it"
            )
        else:
            yield Finding("warning", f"compiler: that of {target} is not here; models will be analysed, not compiled")
