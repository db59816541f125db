"""Schedules of services, given to the services' own clients."""

import http.server
import json
import threading
from pathlib import Path
from typing import Any

import kfp_server_api
import pytest
from click.testing import CliRunner
from google.cloud.aiplatform_v1.types import Schedule

from pipelines.__main__ import main

_GOLDENS = Path(__file__).parents[1] / "goldens"
_VERTEX = ("--project", "my-project", "--region", "europe-west4")


def _write(tmp_path: Path, service: str, *options: str, status: int = 0) -> Any:
    output = tmp_path / "schedule.json"
    arguments = ["schedule-job", str(_GOLDENS / f"digits.{service}.json"), "-o", str(output), *options]
    result = CliRunner().invoke(main, arguments)
    assert result.exit_code == status, result.output
    return json.loads(output.read_text()) if status == 0 else " ".join(result.output.split())


@pytest.mark.parametrize("options", [(), ("--catch-up",)])
def test_vertex_schedule_is_a_schedule_of_one_run_at_a_time(tmp_path: Path, options: tuple[str, ...]) -> None:
    schedule = Schedule.from_json(json.dumps(_write(tmp_path, "vertex", "--at", "0 3 * * *", *_VERTEX, *options)))
    assert schedule.cron == "0 3 * * *"
    assert schedule.max_concurrent_run_count == 1
    assert schedule.allow_queueing is bool(options)
    request = schedule.create_pipeline_job_request
    assert request.parent == "projects/my-project/locations/europe-west4"
    golden = json.loads((_GOLDENS / "digits.vertex.json").read_text())
    assert request.pipeline_job.runtime_config.gcs_output_directory == golden["runtimeConfig"]["gcsOutputDirectory"]
    assert set(request.pipeline_job.pipeline_spec) == set(golden["pipelineSpec"])


@pytest.mark.parametrize("options", [(), ("--catch-up",)])
def test_kubeflow_recurring_run_is_what_its_client_sends(tmp_path: Path, options: tuple[str, ...]) -> None:
    body = _write(tmp_path, "kubeflow", "--at", "30 3 * * 1-5", "--experiment-id", "e-1", *options)
    sent: list[Any] = []

    class Handler(http.server.BaseHTTPRequestHandler):
        def do_POST(self) -> None:
            text = self.rfile.read(int(self.headers["Content-Length"]))
            sent.append((self.path, json.loads(text)))
            self.send_response(200)
            self.send_header("Content-Type", "application/json")
            self.end_headers()
            self.wfile.write(text)

        def log_message(self, *_: Any) -> None:
            """Nothing on the test's output."""

    with http.server.HTTPServer(("127.0.0.1", 0), Handler) as server:
        thread = threading.Thread(target=server.handle_request)
        thread.start()
        configuration = kfp_server_api.Configuration(host=f"http://127.0.0.1:{server.server_port}")
        service = kfp_server_api.RecurringRunServiceApi(kfp_server_api.ApiClient(configuration))
        create = getattr(service, "recurring_run_service_create_recurring_run", None) or service.create_recurring_run
        answer = create(body)
        thread.join()
    assert sent == [("/apis/v2beta1/recurringruns", body)]
    assert answer.trigger.cron_schedule.cron == "0 30 3 * * 1-5"
    assert answer.max_concurrency == "1"
    assert answer.mode == "ENABLE"
    assert answer.no_catchup is not bool(options)
    golden = json.loads((_GOLDENS / "digits.kubeflow.json").read_text())
    assert answer.runtime_config.pipeline_root == golden["runtimeConfig"]["gcsOutputDirectory"]
    assert body["pipeline_spec"].get("pipeline_spec", body["pipeline_spec"]) == golden["pipelineSpec"]


@pytest.mark.parametrize(
    ("service", "options", "message"),
    [
        ("vertex", ("--at", "daily", *_VERTEX), "--at 'daily': expected minute, hour, day, month and weekday"),
        ("vertex", ("--at", "0 0 3 * * *", *_VERTEX), "expected minute, hour, day, month and weekday"),
        ("vertex", ("--at", "60 3 * * *", *_VERTEX), "expected minute, hour, day, month and weekday"),
        ("vertex", ("--at", "0 3 1-32 * *", *_VERTEX), "expected minute, hour, day, month and weekday"),
        ("vertex", ("--at", "0 3 * * *", "--project", "p"), "expected projects/PROJECT/locations/REGION; pass"),
        ("kubeflow", ("--at", "0 3 * * *"), "no experiment for the recurring run; pass --experiment-id"),
    ],
)
def test_schedule_job_writes_nothing_when_something_is_missing(
    tmp_path: Path, service: str, options: tuple[str, ...], message: str
) -> None:
    assert message in _write(tmp_path, service, *options, status=2)
    assert not (tmp_path / "schedule.json").exists()
