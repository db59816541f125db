"""`submit` against local servers that speak the services' protocols, through the clients' own transports."""

import dataclasses
import http.server
import json
import os
import re
import socket
import ssl
import subprocess
import sys
import tempfile
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import trustme
import yaml

from pipelines.submission import kubeflow_package, submit_to_kubeflow, submit_to_vertex

Json = dict[str, Any]

EXPERIMENTS = "/apis/v2beta1/experiments"
RUNS = "/apis/v2beta1/runs"
HEALTH = "/apis/v2beta1/healthz"
KUBEFLOW_TOKEN = "a-token-that-nobody-may-see"
GOOGLE_TOKEN = "ya29.another-token-that-nobody-may-see"
JOBS = "/v1/projects/demo-project/locations/europe-west4/pipelineJobs"


def job(service_account: str = "runner@demo-project.iam.gserviceaccount.com") -> Json:
    """A compiled job as Vertex and Kubeflow take it: two components, of which one is an importer."""
    schema = {"instanceSchema": "title: tfx.Model\ntype: object\n"}
    train = {
        "taskInfo": {"name": "Trainer"},
        "componentRef": {"name": "Trainer"},
        "inputs": {
            "artifacts": {"base": {"taskOutputArtifact": {"producerTask": "Base", "outputArtifactKey": "result"}}},
            "parameters": {
                "rate": {"runtimeValue": {"constant": "1e-5"}},
                "steps": {"runtimeValue": {"constant": 100}},
                "decay": {"runtimeValue": {"constant": 0.00001}},
            },
        },
        "cachingOptions": {"enableCache": True},
        "retryPolicy": {"maxRetryCount": 2, "backoffDuration": "60s", "backoffFactor": 2.0},
        "dependentTasks": ["Base"],
    }
    base = {"taskInfo": {"name": "Base"}, "componentRef": {"name": "Base"}, "cachingOptions": {"enableCache": False}}
    parameters = {"rate": "STRING", "steps": "NUMBER_INTEGER", "decay": "NUMBER_DOUBLE"}
    return {
        "displayName": "digits",
        "labels": {"tfx_qat_runner": "vertex", "team": "vision"},
        "serviceAccount": service_account,
        "pipelineSpec": {
            "schemaVersion": "2.1.0",
            "sdkVersion": "tfx-1.16.0",
            "pipelineInfo": {"name": "digits"},
            "root": {"dag": {"tasks": {"Trainer": train, "Base": base}}},
            "components": {
                "Trainer": {
                    "executorLabel": "Trainer_executor",
                    "inputDefinitions": {
                        "artifacts": {"base": {"artifactType": schema}},
                        "parameters": {name: {"parameterType": kind} for name, kind in parameters.items()},
                    },
                    "outputDefinitions": {"artifacts": {"model": {"artifactType": schema}}},
                },
                "Base": {
                    "executorLabel": "Base_executor",
                    "outputDefinitions": {"artifacts": {"result": {"artifactType": schema}}},
                },
            },
            "deploymentSpec": {
                "executors": {
                    "Trainer_executor": {"container": {"image": "example.org/qat@sha256:00", "args": ["--x", "{{$}}"]}},
                    "Base_executor": {"importer": {"artifactUri": {"constant": "gs://b/base"}, "typeSchema": schema}},
                }
            },
        },
        "runtimeConfig": {
            "gcsOutputDirectory": "gs://demo-bucket/digits/artifacts",
            "failurePolicy": "PIPELINE_FAILURE_POLICY_FAIL_FAST",
        },
    }


@dataclasses.dataclass
class Request:
    method: str
    path: str
    query: str
    headers: dict[str, str]
    body: Any


class Service(http.server.ThreadingHTTPServer):
    """Records requests and answers each path with what `answers` has for it: a status and a body."""

    daemon_threads = True

    def __init__(self, certificate: trustme.LeafCert | None = None) -> None:
        super().__init__(("127.0.0.1", 0), _Handler)
        self.requests: list[Request] = []
        self.answers: dict[tuple[str, str], tuple[int, Any]] = {}
        self.address = f"localhost:{self.server_port}"
        if certificate:
            context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
            certificate.configure_cert(context)
            self.socket = context.wrap_socket(self.socket, server_side=True)

    def handle_error(self, request: Any, client_address: Any) -> None:
        """A client that hangs up is no failure of the server."""


class _Handler(http.server.BaseHTTPRequestHandler):
    server: Service

    def do_GET(self) -> None:
        path, _, query = self.path.partition("?")
        text = self.rfile.read(int(self.headers.get("Content-Length", 0)))
        headers = {name.lower(): value for name, value in self.headers.items()}
        self.server.requests.append(Request(self.command, path, query, headers, _parsed(text)))
        status, body = self.server.answers.get((self.command, path), (404, {"message": f"no {path} here"}))
        answer = body if isinstance(body, bytes) else json.dumps(body).encode()
        self.send_response(status)
        self.send_header("Content-Type", "text/html" if isinstance(body, bytes) else "application/json")
        self.send_header("Content-Length", str(len(answer)))
        if status == 302:
            self.send_header("Location", "/login")
        self.end_headers()
        self.wfile.write(answer)

    do_POST = do_GET  # noqa: N815

    def log_message(self, *_: Any) -> None:
        """Nothing on the test's output."""


def _parsed(text: bytes) -> Any:
    try:
        return json.loads(text)
    except ValueError:
        return text.decode()


def _serving(service: Service) -> Iterator[Service]:
    thread = threading.Thread(target=service.serve_forever, kwargs={"poll_interval": 0.01})
    thread.start()
    yield service
    service.shutdown()
    service.server_close()
    thread.join()


@pytest.fixture(autouse=True)
def environment(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """No credentials and settings of whoever runs the tests, and a directory of temporary files to look into."""
    for name in os.environ:
        if re.match("GOOGLE_|CLOUDSDK_|KF_PIPELINES_|GCLOUD_|.*_PROXY$", name, re.IGNORECASE):
            monkeypatch.delenv(name)
    monkeypatch.setenv("HOME", str(tmp_path))
    monkeypatch.setenv("CLOUDSDK_CONFIG", str(tmp_path / "gcloud"))
    monkeypatch.setenv("NO_GCE_CHECK", "true")
    temporary = tmp_path / "temporary"
    temporary.mkdir()
    monkeypatch.setattr(tempfile, "tempdir", str(temporary))
    return temporary


@pytest.fixture
def vertex(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Service]:
    """The Vertex AI API, with a certificate that the client is told to trust."""
    authority = trustme.CA()
    authority.cert_pem.write_to_path(str(tmp_path / "authority.pem"))
    monkeypatch.setenv("REQUESTS_CA_BUNDLE", str(tmp_path / "authority.pem"))
    service = Service(authority.issue_cert("localhost"))
    for project in ("demo-project", "other-project"):
        parent = f"/v1/projects/{project}/locations/europe-west4/pipelineJobs"
        created = {
            "name": "projects/123456789/locations/europe-west4/pipelineJobs/digits-20261123204821",
            "displayName": "digits",
            "createTime": "2026-11-23T20:48:21.123456Z",
            "updateTime": "2026-11-23T20:48:21.123456Z",
            "state": "PIPELINE_STATE_PENDING",
            "pipelineSpec": job()["pipelineSpec"],
            "runtimeConfig": job()["runtimeConfig"],
        }
        service.answers["POST", parent] = (200, created)
    yield from _serving(service)


@pytest.fixture
def credentials_file(tmp_path: Path, vertex: Service, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Application Default Credentials: of another identity provider, exchanged for a Google token at `vertex`."""
    (tmp_path / "subject").write_text("a-token-of-another-provider")
    file = tmp_path / "credentials.json"
    facts = {
        "type": "external_account",
        "audience": "//iam.example.org/ci",
        "subject_token_type": "urn:ietf:params:oauth:token-type:jwt",
        "token_url": f"https://{vertex.address}/token",
        "credential_source": {"file": str(tmp_path / "subject")},
    }
    file.write_text(json.dumps(facts))
    token = {"access_token": GOOGLE_TOKEN, "token_type": "Bearer", "expires_in": 3600}
    issued = {"issued_token_type": "urn:ietf:params:oauth:token-type:access_token"}
    vertex.answers["POST", "/token"] = (200, {**token, **issued})
    monkeypatch.setenv("GOOGLE_APPLICATION_CREDENTIALS", str(file))
    monkeypatch.setenv("GOOGLE_CLOUD_PROJECT", "demo-project")
    return file


@pytest.fixture
def kubeflow() -> Iterator[Service]:
    """The API of a Kubeflow Pipelines of a single user, which has no experiment yet."""
    service = Service()
    experiment = {"experiment_id": "e-1", "display_name": "nightly", "storage_state": "AVAILABLE"}
    service.answers["GET", HEALTH] = (200, {})
    service.answers["GET", EXPERIMENTS] = (200, {})
    service.answers["POST", EXPERIMENTS] = (200, experiment)
    service.answers["POST", RUNS] = (200, {"run_id": "r-1", "experiment_id": "e-1", "state": "PENDING"})
    yield from _serving(service)


def _to_vertex(vertex: Service, a_job: Json | None = None, **changes: str) -> str:
    place = {"project": "", "region": "europe-west4", "api_endpoint": vertex.address, **changes}
    return submit_to_vertex(a_job or job(), **place)


def _created(vertex: Service) -> list[Request]:
    return [request for request in vertex.requests if request.path.endswith("/pipelineJobs")]


def _to_kubeflow(kubeflow: Service, a_job: Json | None = None, **changes: str) -> str:
    place = {"host": f"http://{kubeflow.address}", "namespace": "", "experiment": "nightly", **changes}
    return submit_to_kubeflow(a_job or job("runner"), **place)


def _refuse(message: str, status: int, name: str) -> tuple[int, Json]:
    return status, {"error": {"code": status, "message": message, "status": name}}


def _sentence(error: pytest.ExceptionInfo[ValueError]) -> str:
    text = str(error.value)
    assert "\n" not in text
    assert "None" not in text
    return text


def test_submit_to_vertex_sends_the_job_as_it_is_when_it_is_accepted(vertex: Service, credentials_file: Path) -> None:
    url = _to_vertex(vertex)

    (request,) = _created(vertex)
    assert request.method == "POST"
    assert request.path == JOBS
    assert re.search(r"pipelineJobId=digits-\d{14}(&|$)", request.query)
    fail_fast = 2  # https://cloud.google.com/vertex-ai/docs/reference/rest/v1/PipelineFailurePolicy
    assert request.body == {**job(), "runtimeConfig": {**job()["runtimeConfig"], "failurePolicy": fail_fast}}
    assert url == (
        "https://console.cloud.google.com/vertex-ai/locations/europe-west4/pipelines/runs/digits-20261123204821"
        "?project=demo-project"
    )


def test_submit_to_vertex_uses_the_project_given_when_the_credentials_name_another(
    vertex: Service, credentials_file: Path
) -> None:
    assert _to_vertex(vertex, project="other-project").endswith("?project=other-project")
    assert [request.path for request in _created(vertex)] == [JOBS.replace("demo-project", "other-project")]


def test_submit_to_vertex_sends_no_account_and_no_policy_when_the_job_has_none(
    vertex: Service, credentials_file: Path
) -> None:
    plain = job()
    del plain["serviceAccount"], plain["labels"], plain["runtimeConfig"]["failurePolicy"]
    _to_vertex(vertex, plain)
    assert [request.body for request in _created(vertex)] == [plain]


def test_submit_to_vertex_shows_no_token_when_it_sends_one(
    vertex: Service, credentials_file: Path, environment: Path, capfd: pytest.CaptureFixture[str], caplog: Any
) -> None:
    caplog.set_level("DEBUG")
    url = _to_vertex(vertex)
    vertex.answers["POST", JOBS] = _refuse("Denied.", 403, "PERMISSION_DENIED")
    with pytest.raises(ValueError, match="refuses the job") as error:
        _to_vertex(vertex)
    assert {request.headers["authorization"] for request in _created(vertex)} == {f"Bearer {GOOGLE_TOKEN}"}
    assert GOOGLE_TOKEN not in "".join((*capfd.readouterr(), caplog.text, str(error.value), url))
    assert list(environment.iterdir()) == []


@pytest.mark.parametrize(
    ("answer", "expected"),
    [
        (
            _refuse("Permission 'aiplatform.pipelineJobs.create' denied on resource.", 403, "PERMISSION_DENIED"),
            r"Vertex in region europe-west4 of project demo-project refuses the job: .*Permission "
            r"'aiplatform.pipelineJobs.create' denied on resource; you need roles/aiplatform.user",
        ),
        (_refuse("Project not found.", 404, "NOT_FOUND"), "Project not found; check --project and --region"),
        (_refuse("Bucket is missing.", 400, "INVALID_ARGUMENT"), "Bucket is missing; correct the config and compile"),
        (
            _refuse("Token expired.", 401, "UNAUTHENTICATED"),
            "Token expired; run `gcloud auth application-default login`",
        ),
        ((503, b"<html>overloaded</html>"), "refuses the job: .*; try again later"),
    ],
)
def test_submit_to_vertex_says_what_the_service_says_when_it_refuses(
    vertex: Service, credentials_file: Path, answer: tuple[int, Any], expected: str
) -> None:
    vertex.answers["POST", JOBS] = answer
    with pytest.raises(ValueError, match=expected) as error:
        _to_vertex(vertex)
    assert _sentence(error)


def test_submit_to_vertex_says_how_to_log_in_when_there_are_no_credentials(vertex: Service) -> None:
    with pytest.raises(ValueError, match="no credentials for Google Cloud: .*gcloud auth application-default login"):
        _to_vertex(vertex, project="demo-project")
    assert vertex.requests == []


def test_submit_to_vertex_names_the_file_when_the_key_file_is_missing(
    vertex: Service, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("GOOGLE_APPLICATION_CREDENTIALS", "/nowhere/key.json")
    with pytest.raises(ValueError, match=r"no credentials for Google Cloud: File /nowhere/key.json was not found;"):
        _to_vertex(vertex)


def test_submit_to_vertex_says_how_to_log_in_when_the_credentials_are_refused(
    vertex: Service, credentials_file: Path
) -> None:
    vertex.answers["POST", "/token"] = (400, {"error": "invalid_grant", "error_description": "The token is expired."})
    with pytest.raises(
        ValueError, match=r"cannot be asked with these credentials: .*The token is expired; run `gcloud"
    ):
        _to_vertex(vertex)
    assert _created(vertex) == []


def test_submit_to_vertex_asks_for_a_project_when_the_credentials_name_none(
    vertex: Service, credentials_file: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv("GOOGLE_CLOUD_PROJECT")
    with pytest.raises(ValueError, match="no Google Cloud project, .* --project"):
        _to_vertex(vertex)
    assert vertex.requests == []


def test_submit_to_vertex_asks_for_a_region_when_there_is_none(vertex: Service, credentials_file: Path) -> None:
    with pytest.raises(ValueError, match="no region .* --region"):
        _to_vertex(vertex, region="")
    assert vertex.requests == []


@pytest.mark.parametrize(
    "place",
    [
        {"region": "evil.example/"},
        {"region": "evil.example?"},
        {"region": "europe-west4#"},
        {"project": "a/b"},
        {"project": "../b"},
        {"api_endpoint": "user:password@evil.example"},
    ],
)
def test_submit_to_vertex_sends_nothing_when_a_name_would_change_the_address(
    vertex: Service, credentials_file: Path, place: dict[str, str]
) -> None:
    with pytest.raises(ValueError, match="would change where the request goes; correct it") as error:
        _to_vertex(vertex, **place)
    assert _sentence(error).startswith(f"--{next(iter(place)).replace('_', '-')} ")
    assert vertex.requests == []


def test_submit_to_vertex_says_so_when_the_key_file_is_a_directory(
    vertex: Service, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("GOOGLE_APPLICATION_CREDENTIALS", str(tmp_path))
    with pytest.raises(ValueError, match="no credentials for Google Cloud: "):
        _to_vertex(vertex)
    assert vertex.requests == []


def test_submit_to_vertex_names_the_host_when_it_does_not_answer(vertex: Service, credentials_file: Path) -> None:
    with socket.create_server(("127.0.0.1", 0)) as closed:
        address = f"localhost:{closed.getsockname()[1]}"
    with pytest.raises(ValueError, match=f"does not answer: .*check --region and the way to {address}"):
        _to_vertex(vertex, api_endpoint=address)


def test_submit_to_vertex_sends_nothing_when_the_certificate_is_not_trusted(
    vertex: Service, credentials_file: Path, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    trustme.CA().cert_pem.write_to_path(str(tmp_path / "other.pem"))
    monkeypatch.setenv("REQUESTS_CA_BUNDLE", str(tmp_path / "other.pem"))
    with pytest.raises(ValueError, match="does not answer: .*CERTIFICATE_VERIFY_FAILED"):
        _to_vertex(vertex)
    assert vertex.requests == []


def test_submit_to_vertex_wants_a_gs_root_when_the_job_is_for_kubeflow(vertex: Service, credentials_file: Path) -> None:
    other = job()
    other["runtimeConfig"]["gcsOutputDirectory"] = "s3://bucket/digits"
    with pytest.raises(ValueError, match="root 's3://bucket/digits' of the job: Vertex expects gs://BUCKET/PATH"):
        _to_vertex(vertex, other)


def test_submit_to_kubeflow_sends_spec_root_and_account_when_it_is_accepted(
    kubeflow: Service, environment: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    url = _to_kubeflow(kubeflow)

    *asked, listed, experiment, run = kubeflow.requests
    assert {request.path for request in asked} == {HEALTH}
    assert (listed.method, listed.path) == ("GET", EXPERIMENTS)
    assert "nightly" in listed.query
    assert "namespace=&" in f"{listed.query}&" or "namespace" not in listed.query
    assert (experiment.method, experiment.path, experiment.body["display_name"]) == ("POST", EXPERIMENTS, "nightly")
    assert (run.method, run.path) == ("POST", RUNS)
    assert run.body["experiment_id"] == "e-1"
    assert re.fullmatch(r"digits \d{4}-\d\d-\d\d \d\d-\d\d-\d\d", run.body["display_name"])
    assert run.body["service_account"] == "runner"
    assert run.body["runtime_config"]["pipeline_root"] == "gs://demo-bucket/digits/artifacts"
    assert _as_message(run.body["pipeline_spec"]["pipeline_spec"]) == _as_message(job()["pipelineSpec"])
    labels = {"tfx_qat_runner": "vertex", "team": "vision"}
    executors = {"Trainer_executor": {"podMetadata": {"labels": labels}}}
    platforms = {"kubernetes": {"deploymentSpec": {"executors": executors}}}
    assert run.body["pipeline_spec"]["platform_spec"] == {"platforms": platforms}
    assert url == f"http://{kubeflow.address}/#/runs/details/r-1"
    assert capfd.readouterr() == ("", "")
    assert list(environment.iterdir()) == []


def test_submit_to_kubeflow_keeps_caching_and_retries_when_they_are_compiled_in(kubeflow: Service) -> None:
    _to_kubeflow(kubeflow)
    tasks = kubeflow.requests[-1].body["pipeline_spec"]["pipeline_spec"]["root"]["dag"]["tasks"]
    assert tasks["Trainer"]["cachingOptions"] == {"enableCache": True}
    assert not tasks["Base"]["cachingOptions"].get("enableCache")
    assert tasks["Trainer"]["retryPolicy"] == {"maxRetryCount": 2, "backoffDuration": "60s", "backoffFactor": 2.0}


def test_submit_to_kubeflow_sends_the_bare_spec_when_the_job_has_no_labels(kubeflow: Service) -> None:
    plain = job()
    del plain["labels"], plain["serviceAccount"]
    _to_kubeflow(kubeflow, plain)
    body = kubeflow.requests[-1].body
    assert _as_message(body["pipeline_spec"]) == _as_message(job()["pipelineSpec"])
    assert "service_account" not in body


def test_submit_to_kubeflow_reuses_the_experiment_when_there_is_one(kubeflow: Service) -> None:
    experiments = {"experiments": [{"experiment_id": "e-7", "display_name": "nightly"}], "total_size": 1}
    kubeflow.answers["GET", EXPERIMENTS] = (200, experiments)
    _to_kubeflow(kubeflow)
    posted = [request for request in kubeflow.requests if request.method == "POST"]
    assert [(request.path, request.body["experiment_id"]) for request in posted] == [(RUNS, "e-7")]


def test_submit_to_kubeflow_sends_the_namespace_when_kubeflow_has_several_users(kubeflow: Service) -> None:
    kubeflow.answers["GET", HEALTH] = (200, {"multi_user": True})
    _to_kubeflow(kubeflow, namespace="vision-team")
    listed, experiment, _ = kubeflow.requests[-3:]
    assert "namespace=vision-team" in listed.query
    assert experiment.body["namespace"] == "vision-team"


def test_submit_to_kubeflow_asks_for_a_namespace_when_kubeflow_has_several_users(kubeflow: Service) -> None:
    kubeflow.answers["GET", HEALTH] = (200, {"multi_user": True})
    with pytest.raises(ValueError, match="has several users; pass --namespace"):
        _to_kubeflow(kubeflow)
    assert {request.path for request in kubeflow.requests} == {HEALTH}


def test_submit_to_kubeflow_sends_no_namespace_when_kubeflow_has_one_user(kubeflow: Service) -> None:
    _to_kubeflow(kubeflow, namespace="kubeflow")
    assert not [request for request in kubeflow.requests if "namespace=kubeflow" in request.query]
    assert not [request for request in kubeflow.requests if (request.body or {}).get("namespace")]


def test_submit_to_kubeflow_sends_the_token_and_shows_it_nowhere_when_a_file_has_one(
    kubeflow: Service,
    tmp_path: Path,
    environment: Path,
    monkeypatch: pytest.MonkeyPatch,
    capfd: pytest.CaptureFixture[str],
    caplog: Any,
) -> None:
    (tmp_path / "token").write_text(KUBEFLOW_TOKEN)
    monkeypatch.setenv("KF_PIPELINES_SA_TOKEN_PATH", str(tmp_path / "token"))
    kubeflow.answers["POST", RUNS] = (403, {"code": 7, "message": "User is not authorized to create a run."})
    with pytest.raises(ValueError, match="refuses with 403: User is not authorized to create a run; pass") as error:
        _to_kubeflow(kubeflow)
    assert {request.headers["authorization"] for request in kubeflow.requests} == {f"Bearer {KUBEFLOW_TOKEN}"}
    assert KUBEFLOW_TOKEN not in "".join((*capfd.readouterr(), caplog.text, _sentence(error)))
    assert list(environment.iterdir()) == []


def test_submit_to_kubeflow_names_the_file_when_the_token_file_is_missing(
    kubeflow: Service, monkeypatch: pytest.MonkeyPatch
) -> None:
    for path in ("/nowhere/token", "/tmp"):
        monkeypatch.setenv("KF_PIPELINES_SA_TOKEN_PATH", path)
        with pytest.raises(ValueError, match=f"KF_PIPELINES_SA_TOKEN_PATH: {path} cannot be read"):
            _to_kubeflow(kubeflow)


@pytest.mark.parametrize("host", ["http://user:s3cret@localhost:1", "ftp://localhost", "http://a b"])
def test_submit_to_kubeflow_refuses_a_host_that_is_no_plain_url(kubeflow: Service, host: str) -> None:
    with pytest.raises(ValueError, match="--host is no http") as error:
        _to_kubeflow(kubeflow, host=host)
    assert "s3cret" not in str(error.value)


@pytest.mark.parametrize(
    ("answer", "expected"),
    [
        ((401, {"message": "Unauthenticated."}), "refuses with 401: Unauthenticated; set KF_PIPELINES_SA_TOKEN_PATH"),
        ((403, b"RBAC: access denied"), "refuses with 403: Forbidden; pass a --namespace"),
        ((404, {"message": "no such page"}), "refuses with 404: no such page; pass as --host the URL"),
        ((302, b""), "refuses with 401: this is a page, not the API; set KF_PIPELINES_SA_TOKEN_PATH"),
        ((500, {"message": "database\nis gone"}), "refuses with 500: database; see the log of its ml-pipeline"),
    ],
)
def test_submit_to_kubeflow_says_so_at_once_when_the_host_refuses(
    kubeflow: Service, answer: tuple[int, Any], expected: str
) -> None:
    kubeflow.answers["GET", HEALTH] = answer
    kubeflow.answers["GET", "/login"] = (200, b"<html>Log in to multi_user Kubeflow</html>")
    with pytest.raises(ValueError, match=expected) as error:
        _to_kubeflow(kubeflow)
    assert len([request for request in kubeflow.requests if request.path == HEALTH]) == 1  # kfp would ask five times
    assert _sentence(error)
    assert {request.method for request in kubeflow.requests} == {"GET"}


def test_submit_to_kubeflow_names_the_host_when_it_does_not_answer(kubeflow: Service) -> None:
    with socket.create_server(("127.0.0.1", 0)) as closed:
        address = f"http://localhost:{closed.getsockname()[1]}"
    with pytest.raises(
        ValueError, match=f"Kubeflow at {address} does not answer: .*Connection refused; check --host"
    ) as error:
        _to_kubeflow(kubeflow, host=address)
    assert "object at" not in _sentence(error)


@pytest.mark.slow
def test_submit_to_kubeflow_gives_up_when_the_host_never_answers(
    kubeflow: Service, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("pipelines.submission._KUBEFLOW_TIMEOUT_S", 1)
    with socket.create_server(("127.0.0.1", 0)) as silent:
        address = f"http://localhost:{silent.getsockname()[1]}"
        with pytest.raises(ValueError, match="does not answer: .*[Rr]ead timed out"):
            _to_kubeflow(kubeflow, host=address)


def test_submit_to_kubeflow_asks_for_a_host_when_there_is_none(kubeflow: Service) -> None:
    with pytest.raises(ValueError, match="no Kubeflow Pipelines to submit to; pass --host"):
        _to_kubeflow(kubeflow, host="")


def test_kubeflow_package_has_spec_and_pod_labels_when_the_job_has_labels() -> None:
    spec, platform = yaml.safe_load_all(kubeflow_package(job()))
    assert spec == job()["pipelineSpec"]
    assert list(platform["platforms"]["kubernetes"]["deploymentSpec"]["executors"]) == ["Trainer_executor"]


def test_kubeflow_package_quotes_strings_when_yaml_parsers_differ_about_them() -> None:
    text = kubeflow_package(job())
    assert '"constant": "1e-5"' in text
    assert '"constant": 1.0e-05' in text


def test_kubeflow_package_has_no_account_and_root_when_the_job_has_them() -> None:
    text = kubeflow_package(job())
    assert "runner@" not in text
    assert "demo-bucket" not in text


@pytest.mark.parametrize(
    ("broken", "expected"),
    [
        (
            {},
            "without displayName, pipelineSpec.pipelineInfo.name, pipelineSpec.deploymentSpec.executors, runtimeConfig",
        ),
        ({**job(), "pipelineSpec": "digits"}, "without pipelineSpec.pipelineInfo.name, "),
        ({**job(), "runtimeConfig": {}}, "without runtimeConfig.gcsOutputDirectory"),
        (job()["pipelineSpec"], "without displayName, pipelineSpec.pipelineInfo.name"),
    ],
)
def test_submit_says_how_to_make_a_job_when_it_is_given_something_else(
    vertex: Service, kubeflow: Service, credentials_file: Path, broken: Json, expected: str
) -> None:
    expected = rf"{expected}.* is no compiled pipeline job; make one with `python -m pipelines compile`"
    with pytest.raises(ValueError, match=expected):
        submit_to_vertex(broken, project="", region="europe-west4", api_endpoint=vertex.address)
    with pytest.raises(ValueError, match=expected):
        submit_to_kubeflow(broken, host=f"http://{kubeflow.address}", namespace="", experiment="")
    assert vertex.requests == kubeflow.requests == []


def test_submit_sends_nothing_when_the_job_has_a_field_that_the_service_does_not_know(
    vertex: Service, kubeflow: Service, credentials_file: Path
) -> None:
    odd = {**job(), "schedule": "daily"}
    with pytest.raises(ValueError, match='this .*"schedule".* is no compiled pipeline job'):
        _to_vertex(vertex, odd)
    odd = job()
    odd["pipelineSpec"]["steps"] = []
    with pytest.raises(ValueError, match='this .*"steps".* is no compiled pipeline job'):
        _to_kubeflow(kubeflow, odd)
    assert vertex.requests == kubeflow.requests == []


def test_submit_to_vertex_names_the_extra_when_the_client_is_missing(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "google.cloud.aiplatform_v1.services.pipeline_service", None)
    with pytest.raises(ValueError, match=r"Vertex's client is missing .* run pip install 'tfx-qat\[vertex\]'"):
        submit_to_vertex(job(), project="p", region="europe-west4")


def test_submit_to_kubeflow_names_the_extra_when_the_client_is_missing(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "kfp", None)
    with pytest.raises(ValueError, match=r"Kubeflow's client is missing .* run pip install 'tfx-qat\[kubeflow\]'"):
        submit_to_kubeflow(job(), host="http://localhost:1", namespace="", experiment="")


def test_submission_imports_no_client_when_it_is_imported() -> None:
    code = "import sys, pipelines.submission; print({'tfx', 'kfp', 'google.auth', 'yaml'} & set(sys.modules) or 'none')"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "none"


def _as_message(pipeline_spec: Json) -> Any:
    from google.protobuf import json_format
    from kfp.pipeline_spec import pipeline_spec_pb2

    return json_format.ParseDict(pipeline_spec, pipeline_spec_pb2.PipelineSpec())
