"""Google Cloud Dataflow.

https://cloud.google.com/dataflow/docs/reference/pipeline-options
"""

import dataclasses
import re
from collections.abc import Mapping
from typing import ClassVar

from pipelines.beam_runners import BeamRunner
from pipelines.deployment import is_image

# https://cloud.google.com/resource-manager/docs/creating-managing-projects#before_you_begin, old ones with a domain.
_PROJECT = re.compile(r"([a-z][a-z0-9.-]*:)?[a-z][a-z0-9-]{4,28}[a-z0-9]")
_REGION = re.compile(r"[a-z]+(-[a-z]+)+[0-9]+")
_BUCKET = re.compile(r"gs://[a-z0-9][a-z0-9._-]{1,220}[a-z0-9](/.*)?")
_ACCOUNT = re.compile(r"[a-z0-9-]+@[a-z0-9.-]+\.gserviceaccount\.com")
_LABEL = re.compile(r"[a-z][a-z0-9_-]{0,62}=[a-z0-9_-]{0,63}")


@dataclasses.dataclass(frozen=True, kw_only=True, slots=True)
class Dataflow(BeamRunner):
    """Google Cloud Dataflow, on the image that the components run in.

    Attributes:
      project: Id of the Google Cloud project.
      region: Region of the workers, such as "europe-west4".
      temp_location: gs:// directory of temporary files.
      staging_location: gs:// directory of what a job consists of; "" for temp_location.
      image: Container image of the workers; "" for the deployment's.
      service_account: Email address whom workers run as; "" for the project's default.
      machine_type: Of a worker; "" for Dataflow's choice.
      workers: How many there are at first; 0 for Dataflow's choice.
      max_workers: How many there may be; 0 for Dataflow's limit.
      disk_gb: Of a worker; 0 for Dataflow's choice.
      subnetwork: "regions/REGION/subnetworks/NAME" or its full URL; "" for the default network.
      public_ips: Whether workers have addresses in the internet.
      labels: Of the job, each as "name=value".
    """

    project: str = ""
    region: str = ""
    temp_location: str = ""
    staging_location: str = ""
    image: str = ""
    service_account: str = ""
    machine_type: str = ""
    workers: int = 0
    max_workers: int = 0
    disk_gb: int = 0
    subnetwork: str = ""
    public_ips: bool = True
    labels: tuple[str, ...] = ()

    OWN_ARGS: ClassVar[frozenset[str]] = frozenset(
        [
            "project",
            "region",
            "temp_location",
            "staging_location",
            "sdk_container_image",
            "worker_harness_container_image",
            "sdk_location",
            "service_account_email",
            "worker_machine_type",
            "machine_type",
            "num_workers",
            "max_num_workers",
            "disk_size_gb",
            "subnetwork",
            "use_public_ips",
            "no_use_public_ips",
            "label",
            "labels",
        ]
    )

    def problems(self) -> list[str]:
        """Returns what is missing, and what is wrong."""
        required = {
            "project": (_PROJECT, "an id such as 'my-project'"),
            "region": (_REGION, "such as 'europe-west4'"),
            "temp_location": (_BUCKET, "such as 'gs://bucket/temp'"),
        }
        optional = {
            "staging_location": (_BUCKET, "such as 'gs://bucket/staging'"),
            "service_account": (_ACCOUNT, "the email address of a Google service account"),
        }
        wrong = [f"no {name} ({what})" for name, (_, what) in required.items() if not getattr(self, name)]
        wrong += [
            f"{name}={getattr(self, name)!r} ({what})"
            for name, (form, what) in {**required, **optional}.items()
            if getattr(self, name) and not form.fullmatch(getattr(self, name))
        ]
        if self.image and not is_image(self.image):
            wrong.append(f"image={self.image!r} (with a tag or digest, such as 'registry/name:1.0')")
        for name in ("workers", "max_workers", "disk_gb"):
            if getattr(self, name) < 0:
                wrong.append(f"{name}={getattr(self, name)} (0 or more)")
        if 0 < self.max_workers < self.workers:
            wrong.append(f"workers={self.workers} above max_workers={self.max_workers} (at most as many)")
        wrong += [f"label {label!r} (as 'team=vision')" for label in self.labels if not _LABEL.fullmatch(label)]
        return wrong

    def problems_in(self, uris: Mapping[str, str], image: str) -> list[str]:
        """Returns which directories its workers cannot see, and that there is no image for them."""
        wrong = [f"{what} {uri!r} (its workers see gs:// alone)" for what, uri in uris.items() if uri[:5] != "gs://"]
        if not (self.image or image):
            wrong.append("no image (set its own or deployment.image, made by infra/Dockerfile)")
        return wrong

    def own_arguments(self, image: str) -> list[str]:
        """Returns the arguments that the fields stand for."""
        values = {
            "runner": "DataflowRunner",
            "project": self.project,
            "region": self.region,
            "temp_location": self.temp_location,
            "staging_location": self.staging_location or self.temp_location,
            "sdk_container_image": self.image or image,
            # The image has Beam and all else; nothing is installed when a worker starts.
            "sdk_location": "container",
            "service_account_email": self.service_account,
            "worker_machine_type": self.machine_type,
            "num_workers": self.workers,
            "max_num_workers": self.max_workers,
            "disk_size_gb": self.disk_gb,
            "subnetwork": self.subnetwork,
        }
        args = [f"--{name}={value}" for name, value in values.items() if value]
        args += [] if self.public_ips else ["--no_use_public_ips"]
        return [*args, *(f"--labels={label}" for label in self.labels)]


RUNNER = Dataflow
