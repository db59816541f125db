"""A compiled job as the body of a request that makes its service run it by a clock.

The bodies are built with, and so checked by, the request classes of the services' own clients. Neither is sent.
"""

import json
import re
from collections.abc import Mapping
from typing import Any

import yaml

from pipelines.job_spec import NO_JOB
from pipelines.submission import kubeflow_package

# Five fields of https://man7.org/linux/man-pages/man5/crontab.5.html
_CRON = re.compile(r"[0-9*,/-]+ [0-9*,/-]+ [0-9*,/-]+ [0-9A-Za-z*,/-]+ [0-9A-Za-z*,/-]+")
_CRON_RANGES = ((0, 59), (0, 23), (1, 31), (1, 12), (0, 7))
_PARENT = re.compile(r"projects/[a-z0-9][a-z0-9.:-]*/locations/[a-z]+-[a-z]+[0-9]+")

Json = dict[str, Any]


def require_cron(cron: str) -> None:
    """Raises ValueError if that is no cron expression of five fields, which both services count in UTC."""
    if not _CRON.fullmatch(cron) or not all(map(_is_within, cron.split(), _CRON_RANGES)):
        raise ValueError(f"--at {cron!r}: expected minute, hour, day, month and weekday, such as '0 3 * * *'")


def _is_within(field: str, limits: tuple[int, int]) -> bool:
    """Whether the numbers of a field, but for steps, are within limits; names are left to the service."""
    numbers = map(int, re.findall(r"\d+", re.sub(r"/\d+", "", field)))
    return all(limits[0] <= number <= limits[1] for number in numbers)


def vertex_schedule(job: Mapping[str, Any], *, cron: str, parent: str, catch_up: bool) -> Json:
    """Returns the body of projects.locations.schedules.create, for a POST to https://HOST/v1/PARENT/schedules.

    https://cloud.google.com/vertex-ai/docs/reference/rest/v1/projects.locations.schedules

    Args:
      job: A compiled pipeline job.
      cron: Five fields, by UTC.
      parent: Such as "projects/my-project/locations/europe-west4".
      catch_up: Whether what is due while a run is under way waits for its end, not for the next time. What is missed
        while a schedule is paused is asked for when it is resumed: the field catchUp of a Schedule cannot be set.

    Raises:
      ValueError: If the job, the cron expression or the parent is none, or the client is missing.
    """
    require_cron(cron)
    if not _PARENT.fullmatch(parent):
        raise ValueError(f"{parent!r}: expected projects/PROJECT/locations/REGION; pass --project and --region")
    try:
        from google.cloud.aiplatform_v1.types import Schedule
        from google.protobuf.json_format import ParseError
    except ImportError as error:
        raise ValueError(f"Vertex's client is missing ({error}); run pip install 'tfx-qat[vertex]'") from error
    body = {
        "displayName": job["displayName"],
        "cron": cron,
        "maxConcurrentRunCount": "1",
        "allowQueueing": catch_up,
        "createPipelineJobRequest": {"parent": parent, "pipelineJob": dict(job)},
    }
    try:
        Schedule.from_json(json.dumps(body))
    except ParseError as error:
        raise ValueError(f"this ({error}) {NO_JOB}") from error
    return body


def kubeflow_recurring_run(job: Mapping[str, Any], *, cron: str, experiment_id: str, catch_up: bool) -> Json:
    """Returns the body for a POST to HOST/apis/v2beta1/recurringruns.

    https://www.kubeflow.org/docs/components/pipelines/reference/api/kubeflow-pipeline-api-spec/

    Args:
      job: A compiled pipeline job.
      cron: Five fields, by UTC; Kubeflow gets a sixth before them, the seconds.
      experiment_id: Of the experiment that its runs belong to.
      catch_up: Whether runs that were missed are run later.

    Raises:
      ValueError: If the job or the cron expression is none, or the client is missing.
    """
    require_cron(cron)
    if not experiment_id:
        raise ValueError("no experiment for the recurring run; pass --experiment-id, as Kubeflow's page of it shows")
    try:
        import kfp_server_api as api
    except ImportError as error:
        raise ValueError(f"Kubeflow's client is missing ({error}); run pip install 'tfx-qat[kubeflow]'") from error
    spec, *platform = yaml.safe_load_all(kubeflow_package(job))
    recurring = api.V2beta1RecurringRun(
        display_name=job["displayName"],
        pipeline_spec={"pipeline_spec": spec, "platform_spec": platform[0]} if platform else spec,
        runtime_config=api.V2beta1RuntimeConfig(pipeline_root=job["runtimeConfig"]["gcsOutputDirectory"]),
        service_account=job.get("serviceAccount"),
        max_concurrency="1",
        trigger=api.V2beta1Trigger(cron_schedule=api.V2beta1CronSchedule(cron=f"0 {cron}")),
        mode=api.RecurringRunMode.ENABLE,
        no_catchup=not catch_up,
        experiment_id=experiment_id,
    )
    body: Json = api.ApiClient().sanitize_for_serialization(recurring)
    return body
