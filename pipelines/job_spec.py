"""A config as a job for Vertex AI Pipelines or Kubeflow Pipelines, in the form of Vertex's REST resource PipelineJob.

https://cloud.google.com/vertex-ai/docs/reference/rest/v1/projects.locations.pipelineJobs
"""

import importlib.util
import json
import os
import re
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from pipelines.config import PipelineConfig

RUNNER_LABEL = "tfx_qat_runner"
NO_JOB = "is no compiled pipeline job; make one with `python -m pipelines compile`"
# A container argument that the service replaces with what a task is to do.
EXECUTOR_INPUT = "{{$}}"

_URI = re.compile(r"(?P<scheme>[a-z0-9]+)://(?P<bucket>[a-z0-9][a-z0-9._-]{1,220}[a-z0-9])(?P<path>(?:/[\w.+=,@ -]*)*)")

Json = dict[str, Any]


def build_job(config: PipelineConfig, runner: str, schemes: tuple[str, ...]) -> Json:
    """Compiles a config's pipeline with TFX and puts its deployment in.

    Tasks: the pipeline's components, a VerdictRecorder and a ReportPage for each target, all inside the task `tfx-dag`,
    and RunReporter, which runs when that has ended, however it ended.

    Args:
      config: The config. Its root, examples and push_dir are object storage.
      runner: Name of the runner that the job is for.
      schemes: Of object storage that the runner's containers can read, such as ("gs",).

    Returns:
      The job: displayName, labels, pipelineSpec, runtimeConfig and, if the deployment has one, serviceAccount.

    Raises:
      ValueError: For whatever in the config is wrong, all at once where possible; nothing is written.
    """
    _check_config(config, runner, schemes)
    from kfp.pipeline_spec import pipeline_spec_pb2  # noqa: F401  (the extra, checked above)
    from tfx.orchestration.kubeflow.v2 import kubeflow_v2_dag_runner, pipeline_builder
    from tfx.orchestration.pipeline import Pipeline

    from components.verdict_reporter import RunReporter
    from pipelines.last_blessed import narrow_queries
    from pipelines.pipeline import pipeline_components

    components = pipeline_components(config, on_service=True)
    by_id = {component.id: component for component in components}
    recorders, pages = _recorders(config, by_id), _pages(config, by_id)
    reporter = RunReporter(reports_uri=config.reports_uri, targets=[plan.target for plan in config.targets])
    recorder_ids = [recorder.id for recorder in recorders]
    ids = [*by_id, *recorder_ids, *(page.id for page in pages), reporter.id]
    _check_component_ids(config, ids)
    deployment = config.deployment
    tfx_runner = kubeflow_v2_dag_runner.KubeflowV2DagRunner(
        kubeflow_v2_dag_runner.KubeflowV2DagRunnerConfig(
            default_image={**deployment.images, pipeline_builder.DEFAULT_IMAGE_PATH_KEY: deployment.image},
            # For Vertex too: only with it an executor sees the span that ExampleGen's driver found.
            use_pipeline_spec_2_1=True,
        )
    )
    tfx_runner.set_exit_handler(reporter)
    pipeline = Pipeline(
        pipeline_name=config.name,
        pipeline_root=config.pipeline_root,
        components=[*components, *recorders, *pages],
        enable_cache=deployment.cache,
    )
    job: Json = tfx_runner.run(pipeline, write_out=False)
    job["labels"] = {**deployment.labels, **job["labels"], RUNNER_LABEL: runner}
    if deployment.service_account:
        job["serviceAccount"] = deployment.service_account
    _name_pages(job)
    narrow_queries(job, config)
    # An override counts until a day, which no cache key of a service knows.
    dated = [f"QuantizedEvaluator{plan.suffix}" for plan in config.plans if plan.gates.overrides]
    _deploy(config, job, runner, uncached=[*recorder_ids, *dated])
    _check_placeholders(job)
    return job


def _recorders(config: PipelineConfig, components: Mapping[str, Any]) -> list[Any]:
    """What records the verdict on each target's model, of components by their ids."""
    from components.verdict_reporter import VerdictRecorder

    return [
        VerdictRecorder(
            blessing=components[f"QuantizedEvaluator{plan.suffix}"].outputs["blessing"],
            infra_blessing=components[f"EdgeInfraValidator{plan.suffix}"].outputs["blessing"],
            pushed_model=components[f"Pusher{plan.suffix}"].outputs["pushed_model"],
            reports_uri=config.reports_uri,
            target=plan.target if config.targets else "",
        ).with_id(f"VerdictRecorder{plan.suffix}")
        for plan in config.plans
    ]


def _pages(config: PipelineConfig, components: Mapping[str, Any]) -> list[Any]:
    """What shows the page on each target's model, of components by their ids."""
    from components.report_page import report_page

    return [
        report_page(
            components[f"QuantizedEvaluator{plan.suffix}"].outputs["blessing"],
            config.deployment.images.get(f"ReportPage{plan.suffix}", config.deployment.image),
        ).with_id(f"ReportPage{plan.suffix}")
        for plan in config.plans
    ]


def require_service_account(config: PipelineConfig, form: re.Pattern[str], what: str) -> None:
    """Checks the form of a deployment's service account, if it has one; raises ValueError if it is no `what`."""
    account = config.deployment.service_account
    if account and not form.fullmatch(account):
        raise ValueError(f"service_account {account!r} is no {what}")


def require_accelerators(config: PipelineConfig, form: re.Pattern[str], what: str) -> None:
    """Checks the types of a deployment's accelerators; raises ValueError with all that are no `what`."""
    deployment = config.deployment
    every = {"resources": deployment.resources, **deployment.component_resources}
    wrong = [
        f"{name} {one.accelerator!r}"
        for name, one in every.items()
        if one.accelerator and not form.fullmatch(one.accelerator)
    ]
    if wrong:
        raise ValueError(f"config {config.name!r}: accelerators of {', '.join(wrong)}: expected {what}")


def tasks_of(job: Mapping[str, Any]) -> dict[str, Json]:
    """Returns the tasks of a job, those inside of other tasks included, by name.

    Raises:
      ValueError: If it is no compiled job.
    """
    spec = job.get("pipelineSpec")
    if not isinstance(spec, dict) or not spec.get("root", {}).get("dag", {}).get("tasks"):
        raise ValueError(f"this {NO_JOB}")
    dags = [spec["root"], *(component for component in spec["components"].values() if "dag" in component)]
    return {name: task for dag in dags for name, task in dag["dag"]["tasks"].items()}


def containers_of(job: Mapping[str, Any]) -> dict[str, Json]:
    """Returns the container specs of a job's tasks, by the task's name.

    Raises:
      ValueError: If it is no compiled job, or a task's component or executor is missing in it.
    """
    spec = job.get("pipelineSpec", {})
    containers = {}
    for name, task in tasks_of(job).items():
        component = spec["components"].get(task["componentRef"]["name"])
        if component is None:
            raise ValueError(
                f"task {name} refers to component {task['componentRef']['name']}, which is not in the spec"
            )
        if "dag" in component:
            continue
        executor = (spec.get("deploymentSpec") or {}).get("executors", {}).get(component.get("executorLabel"))
        if executor is None:
            raise ValueError(
                f"component {name} has the executor {component.get('executorLabel')}, which is not in the spec"
            )
        if "container" in executor:
            containers[name] = executor["container"]
    return containers


def read_job(path: Path) -> Json:
    """Reads a compiled job.

    Raises:
      ValueError: If the file is missing or no compiled job.
    """
    try:
        job: Json = json.loads(path.read_text(encoding="utf-8"))
        tasks_of(job)
        labels, root = job.get("labels", {}), job["runtimeConfig"]["gcsOutputDirectory"]
        if not (isinstance(labels, dict) and isinstance(root, str)):
            raise TypeError
    except OSError as error:
        raise ValueError(f"{path} cannot be read: {error.strerror}") from error
    except (ValueError, AttributeError, KeyError, TypeError) as error:
        raise ValueError(
            f"{path} is no compiled pipeline job; make one with `python -m pipelines compile ... -o <name>.json`"
        ) from error
    return job


def write_whole(path: Path, text: str) -> None:
    """Writes a file that is there whole or not at all; raises ValueError if it cannot be written."""
    partial = path.with_name(f".{path.name}.{os.getpid()}")
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        partial.write_text(text, encoding="utf-8")
        partial.replace(path)
    except OSError as error:
        raise ValueError(f"{path} cannot be written: {error.strerror}; choose another --output") from error
    finally:
        partial.unlink(missing_ok=True)


def to_yaml(*documents: Mapping[str, Any]) -> str:
    """Returns documents as YAML in which every string is quoted.

    PyYAML leaves "1e-5" plain, as it is no number to itself, but it is one to the YAML of the services.
    """
    import yaml

    class Dumper(yaml.SafeDumper):  # type: ignore[misc]
        def ignore_aliases(self, data: Any) -> bool:
            return True

        def represent_str(self, data: str) -> yaml.ScalarNode:
            return self.represent_scalar("tag:yaml.org,2002:str", data, style='"')

    Dumper.add_representer(str, Dumper.represent_str)
    text: str = yaml.dump_all(documents, Dumper=Dumper, sort_keys=True, allow_unicode=True, width=1e9)
    return text


def uri_problem(what: str, uri: str, schemes: tuple[str, ...]) -> str:
    """Says what is wrong with the URI of a directory in object storage; empty if nothing is.

    >>> uri_problem("root", "runs/digits", ("gs",))
    "root 'runs/digits' is not in object storage that the containers can reach; expected gs://bucket/path"
    """
    expected = " or ".join(f"{scheme}://bucket/path" for scheme in schemes)
    match = _URI.fullmatch(uri)
    if "@" in uri.partition("://")[2].partition("/")[0]:
        return f"{what} carries credentials; give them to the containers' service account instead"
    if match is None or match["scheme"] not in schemes:
        return f"{what} {uri!r} is not in object storage that the containers can reach; expected {expected}"
    if ".." in match["path"].split("/"):
        return f"{what} {uri!r} leads out of itself by '..'; expected {expected}"
    return ""


def _check_config(config: PipelineConfig, runner: str, schemes: tuple[str, ...]) -> None:
    directories = {"root": config.root, "examples": config.examples_dir, "push_dir": config.push_dir}
    directories |= {f"push_dir of {plan.target}": plan.push_dir for plan in config.targets}
    problems = [uri_problem(what, uri, schemes) for what, uri in directories.items() if uri or what == "root"]
    if not config.deployment.image:
        problems.append("no image; set deployment.image or pass --image, see infra/Dockerfile")
    if importlib.util.find_spec("kfp") is None or importlib.util.find_spec("kfp.pipeline_spec") is None:
        problems.append(f"the package kfp-pipeline-spec is not installed; pip install 'tfx-qat[{runner}]'")
    problems = list(dict.fromkeys(filter(None, problems)))
    if problems:
        raise ValueError(f"config {config.name!r} cannot be compiled for {runner}: {'; '.join(problems)}")


def _check_component_ids(config: PipelineConfig, ids: list[str]) -> None:
    unknown = sorted(config.deployment.component_ids() - set(ids))
    if unknown:
        raise ValueError(
            f"config {config.name!r}: the deployment names {', '.join(unknown)}, no components; there are"
            f" {', '.join(ids)}"
        )


def _name_pages(job: Json) -> None:
    """Says what pages are by the service's own title of the type, for which TFX's compiler writes a schema."""
    from components.report_page import HTML_SCHEMA

    for component in job["pipelineSpec"]["components"].values():
        for output in component.get("outputDefinitions", {}).get("artifacts", {}).values():
            if f"title: {HTML_SCHEMA['schemaTitle']}\n" in output["artifactType"].get("instanceSchema", ""):
                output["artifactType"] = dict(HTML_SCHEMA)


def _deploy(config: PipelineConfig, job: Json, runner: str, uncached: list[str]) -> None:
    """Puts in what TFX's compiler does not: resources for every kind of component, retries, what is not cached.

    A task with a driver is cached by what the driver finds in the data; Kubeflow runs no drivers, so there it is not.
    """
    deployment = config.deployment
    tasks = tasks_of(job)
    for name, container in containers_of(job).items():
        resources = deployment.resources_of(name).to_spec()
        if resources:
            container["resources"] = resources
        if deployment.retries:
            tasks[name]["retryPolicy"] = {
                "maxRetryCount": deployment.retries,
                "backoffDuration": f"{deployment.retry_backoff_s}s",
                "backoffFactor": 2.0,
            }
        if name in uncached or (runner == "kubeflow" and "lifecycle" in container):
            tasks[name].pop("cachingOptions", None)


def _check_placeholders(job: Json) -> None:
    """The services resolve `{{$...}}` in any value; what a user's names bring in must not be one."""
    from components.report_page import BLESSING_URI, PAGE_URI
    from components.verdict_reporter import RUN_ID_PLACEHOLDER

    ours = (EXECUTOR_INPUT, BLESSING_URI, PAGE_URI)
    found = [f"{name} is {value!r}" for name, value in _constants(job) if "{{" in value and value != RUN_ID_PLACEHOLDER]
    for name, container in containers_of(job).items():
        arguments = [container["image"], *container.get("command", []), *container.get("args", [])]
        found += [f"{name}: {text!r}" for text in arguments if "{{" in text and text not in ours]
    if found:
        raise ValueError(
            f"'{{{{' marks placeholders of the service and may not be part of a setting: {'; '.join(found)}"
        )


def _constants(job: Json) -> Iterator[tuple[str, str]]:
    for name, task in tasks_of(job).items():
        for key, value in task.get("inputs", {}).get("parameters", {}).items():
            constant = value.get("runtimeValue", {}).get("constant")
            if isinstance(constant, str):
                yield f"{name}.{key}", constant
