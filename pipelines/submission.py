"""Hands a compiled job to Vertex AI Pipelines or Kubeflow Pipelines, with the client of each.

The clients are imported when they are used, and TFX never. Each failure is a ValueError of one sentence, which quotes
what a service answers and nothing of what was sent to it.
"""

import contextlib
import datetime
import io
import json
import os
import re
import tempfile
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from pipelines.job_spec import NO_JOB, to_yaml

_REQUIRED = (
    "displayName",
    "pipelineSpec.pipelineInfo.name",
    "pipelineSpec.deploymentSpec.executors",
    "runtimeConfig.gcsOutputDirectory",
)
_LOG_IN = (
    "run `gcloud auth application-default login`, or set GOOGLE_APPLICATION_CREDENTIALS to the key file of a service "
    "account"
)
_VERTEX_HINTS = {
    400: "correct the config and compile again",
    401: _LOG_IN,
    403: "you need roles/aiplatform.user on the project and roles/iam.serviceAccountUser on the job's service account, "
    "and the project the Vertex AI API",
    404: "check --project and --region",
    429: "wait, or raise the project's quota",
}
_KUBEFLOW_HINTS = {
    401: "set KF_PIPELINES_SA_TOKEN_PATH to a file with a token for it, or forward a port to it",
    403: "pass a --namespace in which you may run pipelines, or have that allowed",
    404: "pass as --host the URL of Pipelines 2.0 or newer, with its path",
}
# They become the host that gets the token and a part of the request's path.
_REGION = re.compile("[a-z]+-[a-z]+[0-9]+")
_PROJECT = re.compile("[a-z0-9][a-z0-9.:-]*")
_HOST = re.compile("[a-z0-9.-]+(:[0-9]+)?", re.IGNORECASE)
_VERTEX_TIMEOUT_S = 60
_KUBEFLOW_TIMEOUT_S = 5  # of each of urllib3's four attempts


def submit_to_vertex(job: Mapping[str, Any], *, project: str, region: str, api_endpoint: str = "") -> str:
    """Creates `job` on Vertex AI Pipelines, with the Application Default Credentials.

    It is sent as it is, by the API's own client: `aiplatform.PipelineJob` takes it apart, and makes the root's bucket,
    with a grant on it, where it sees none, before it knows whether the job is accepted.

    Args:
      job: A compiled pipeline job.
      project: Google Cloud project; empty for that of the credentials.
      region: Google Cloud region, such as europe-west4.
      api_endpoint: Host of the API where it isn't REGION-aiplatform.googleapis.com, as with Private Service Connect.

    Returns:
      The job's URL in the Google Cloud console.

    Raises:
      ValueError: If it cannot be submitted.
    """
    _check_job(job)
    _check_vertex_place(job, project, region, api_endpoint)
    try:
        from google.cloud.aiplatform_v1.services.pipeline_service import PipelineServiceClient
        from google.cloud.aiplatform_v1.types import PipelineJob
        from google.protobuf.json_format import ParseError
    except ImportError as error:
        raise ValueError(f"Vertex's client is missing ({error}); run pip install 'tfx-qat[vertex]'") from error
    try:
        request = PipelineJob.from_json(json.dumps(job))
    except ParseError as error:
        raise ValueError(f"this ({_clause(error)}) {NO_JOB}") from error
    credentials, default_project = _google_credentials()
    project = project or default_project
    if not project:
        raise ValueError("no Google Cloud project, and the credentials name none; pass --project")

    host = api_endpoint or f"{region}-aiplatform.googleapis.com"
    pipeline = re.sub("[^-0-9a-z]+", "-", job["pipelineSpec"]["pipelineInfo"]["name"].lower()).strip("-")
    # REST: gRPC logs a traceback of refused credentials, and heeds no REQUESTS_CA_BUNDLE.
    options = {"api_endpoint": host}
    with (
        _vertex_errors(f"Vertex in region {region} of project {project}", host),
        PipelineServiceClient(credentials=credentials, transport="rest", client_options=options) as client,
    ):
        created = client.create_pipeline_job(
            parent=f"projects/{project}/locations/{region}",
            pipeline_job=request,
            pipeline_job_id=f"{pipeline}-{datetime.datetime.now():%Y%m%d%H%M%S}",
            timeout=_VERTEX_TIMEOUT_S,
        )
    name = PipelineServiceClient.parse_pipeline_job_path(created.name)["pipeline_job"]
    return f"https://console.cloud.google.com/vertex-ai/locations/{region}/pipelines/runs/{name}?project={project}"


def _check_vertex_place(job: Mapping[str, Any], project: str, region: str, api_endpoint: str) -> None:
    root = job["runtimeConfig"]["gcsOutputDirectory"]
    if not root.startswith("gs://"):
        raise ValueError(f"root {root!r} of the job: Vertex expects gs://BUCKET/PATH; compile it with --runner vertex")
    if not region:
        raise ValueError("no region to run the job in; pass --region, such as europe-west4")
    for option, value, form in (
        ("--region", region, _REGION),
        ("--project", project, _PROJECT),
        ("--api-endpoint", api_endpoint, _HOST),
    ):
        if value and not form.fullmatch(value):
            raise ValueError(f"{option} {value!r} is none, and would change where the request goes; correct it")


def _google_credentials() -> tuple[Any, str]:
    """The Application Default Credentials and their project, which may be empty."""
    import google.auth
    from google.auth.exceptions import GoogleAuthError

    try:
        credentials, project = google.auth.default(scopes=["https://www.googleapis.com/auth/cloud-platform"])
    except (GoogleAuthError, OSError) as error:
        raise ValueError(f"no credentials for Google Cloud: {_clause(error).partition('. ')[0]}; {_LOG_IN}") from error
    return credentials, project or ""


@contextlib.contextmanager
def _vertex_errors(where: str, host: str) -> Iterator[None]:
    """Turns what the client raises into ValueErrors that say what to do."""
    from google.api_core.exceptions import GoogleAPICallError
    from google.auth.exceptions import GoogleAuthError, TransportError
    from requests import RequestException

    try:
        yield
    except GoogleAPICallError as error:
        hint = _VERTEX_HINTS.get(int(error.code or 0), "try again later")
        raise ValueError(f"{where} refuses the job: {_clause(error)}; {hint}") from error
    except (RequestException, TransportError, OSError) as error:
        raise ValueError(f"{where} does not answer: {_clause(error)}; check --region and the way to {host}") from error
    except GoogleAuthError as error:
        raise ValueError(f"{where} cannot be asked with these credentials: {_clause(error)}; {_LOG_IN}") from error


def kubeflow_package(job: Mapping[str, Any]) -> str:
    """Returns `job` as the YAML that Kubeflow's pages and clients take.

    The first document is the PipelineSpec; the second, where the job has labels, gives them to each container's pod:
    https://github.com/kubeflow/pipelines/blob/2.16.1/kubernetes_platform/proto/kubernetes_executor_config.proto
    A package has no place for the root and the service account, which each run is given, nor for a failure policy.

    Raises:
      ValueError: If `job` is no compiled pipeline job.
    """
    _check_job(job)
    documents = [job["pipelineSpec"]]
    if labels := job.get("labels"):
        executors = {
            label: {"podMetadata": {"labels": labels}}
            for label, executor in job["pipelineSpec"]["deploymentSpec"]["executors"].items()
            if "container" in executor
        }
        documents.append({"platforms": {"kubernetes": {"deploymentSpec": {"executors": executors}}}})
    return to_yaml(*documents)


def submit_to_kubeflow(job: Mapping[str, Any], *, host: str, namespace: str, experiment: str) -> str:
    """Creates a run of `job` on Kubeflow Pipelines.

    Authenticates as kfp's client does by itself (its environment variables, ~/.config/kfp/context.json), and with the
    token in the file that KF_PIPELINES_SA_TOKEN_PATH names.

    Args:
      job: A compiled pipeline job.
      host: URL of the API or of the pages, such as http://localhost:8080.
      namespace: The user's, where Kubeflow has several users; where it has one, there is none to choose.
      experiment: Name of the run's experiment, made if there is none; empty for kfp's default.

    Returns:
      The run's URL in Kubeflow's pages.

    Raises:
      ValueError: If it cannot be submitted.
    """
    package = kubeflow_package(job)
    if not host:
        raise ValueError("no Kubeflow Pipelines to submit to; pass --host, such as http://localhost:8080")
    try:
        from google.protobuf import json_format
        from kfp import client as kfp_client
        from kfp.pipeline_spec import pipeline_spec_pb2
    except ImportError as error:
        raise ValueError(f"Kubeflow's client is missing ({error}); run pip install 'tfx-qat[kubeflow]'") from error
    try:
        json_format.ParseDict(job["pipelineSpec"], pipeline_spec_pb2.PipelineSpec())
    except json_format.ParseError as error:  # which the client would see only after it has made the experiment
        raise ValueError(f"this ({_clause(error)}) {NO_JOB}") from error

    host = (host if "://" in host else f"https://{host}").rstrip("/")
    if not re.fullmatch(r"https?://[^@\s]+", host):
        raise ValueError("--host is no http(s) URL, or carries credentials; give those by KF_PIPELINES_SA_TOKEN_PATH")
    token = os.environ.get(kfp_client.KF_PIPELINES_SA_TOKEN_ENV)
    if token and not (os.path.isfile(token) and os.access(token, os.R_OK)):
        raise ValueError(f"KF_PIPELINES_SA_TOKEN_PATH: {token} cannot be read; correct or unset it")
    with _kubeflow_errors(host):
        credentials = kfp_client.ServiceAccountTokenVolumeCredentials(token) if token else None
        client = _kubeflow_client_class()(host, credentials=credentials)
        is_shared = client.get_kfp_healthz().multi_user
        if is_shared and not (namespace or client.get_user_namespace()):
            raise ValueError(f"Kubeflow at {host} has several users; pass --namespace with yours")
        # Means nothing where there is one user.
        run_id = _create_run(client, job, package, experiment, namespace if is_shared else "")
    return f"{os.environ.get('KF_PIPELINES_UI_ENDPOINT', host).rstrip('/')}/#/runs/details/{run_id}"


def _create_run(client: Any, job: Mapping[str, Any], package: str, experiment: str, namespace: str) -> str:
    """Returns the id of a new run; the client would print links."""
    with tempfile.TemporaryDirectory() as directory, contextlib.redirect_stdout(io.StringIO()):
        file = Path(directory, "pipeline.yaml")
        file.write_text(package)
        run = client.create_run_from_pipeline_package(
            str(file),
            run_name=f"{job['displayName']} {datetime.datetime.now():%Y-%m-%d %H-%M-%S}",
            experiment_name=experiment or None,
            namespace=namespace or None,
            pipeline_root=job["runtimeConfig"]["gcsOutputDirectory"],
            service_account=job.get("serviceAccount"),
        )
    run_id: str = run.run_id
    return run_id


@contextlib.contextmanager
def _kubeflow_errors(host: str) -> Iterator[None]:
    """Turns what the client raises into ValueErrors that say what to do."""
    import kfp_server_api
    from urllib3.exceptions import HTTPError

    try:
        yield
    except kfp_server_api.ApiException as error:
        message = error.reason  # and not the error's own text, which has headers
        with contextlib.suppress(ValueError, TypeError, AttributeError):
            message = json.loads(error.body).get("message") or message
        hint = _KUBEFLOW_HINTS.get(error.status, "see the log of its ml-pipeline deployment")
        raise ValueError(f"Kubeflow at {host} refuses with {error.status}: {_clause(message)}; {hint}") from error
    except json.JSONDecodeError as error:
        raise ValueError(f"kfp's own ~/.config/kfp/context.json is no JSON ({_clause(error)}); mend it") from error
    except HTTPError as error:
        reason = _clause(getattr(error, "reason", None) or error)
        raise ValueError(
            f"Kubeflow at {host} does not answer: {reason}; check --host, and where a port is forwarded to it, that it "
            "still is (kubectl port-forward -n kubeflow svc/ml-pipeline-ui 8080:80)"
        ) from error


def _kubeflow_client_class() -> Any:
    import kfp
    import kfp_server_api

    class Client(kfp.Client):  # type: ignore[misc]
        """Asks for the API's health once: five times, 5 s apart, with a traceback for each refusal, is too much."""

        def get_kfp_healthz(self, sleep_duration: int = 5) -> Any:
            ask = getattr(self.healthzs, "healthz_service_get_healthz", None) or self.healthzs.get_healthz  # kfp 2.5
            answer = ask(_preload_content=False, _request_timeout=_KUBEFLOW_TIMEOUT_S)
            try:
                multi_user = json.loads(answer.data).get("multi_user", False)
            except (ValueError, AttributeError) as error:  # which the client would take for an answer without fields
                raise kfp_server_api.ApiException(401, "this is a page, not the API") from error
            return kfp_server_api.V2beta1GetHealthzResponse(multi_user=multi_user)

    return Client


def _check_job(job: Mapping[str, Any]) -> None:
    def at(path: str) -> Any:
        value: Any = job
        for key in path.split("."):
            value = value.get(key) if isinstance(value, Mapping) else None
        return value

    if missing := [path for path in _REQUIRED if not at(path)]:
        raise ValueError(f"this (without {', '.join(missing)}) {NO_JOB}")


def _clause(said: object) -> str:
    """Returns the first line of what a service or an exception says, as part of a sentence."""
    text = str(said.args[0] if isinstance(said, Exception) and said.args else said)
    line = next(iter(text.strip().splitlines()), type(said).__name__)
    return re.sub(r"^<\S+ object at \w+>: ", "", line).rstrip(". ")
