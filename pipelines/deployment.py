"""Deployment: how a pipeline's containers run on Vertex AI Pipelines or Kubeflow Pipelines."""

import dataclasses
import math
import re
from collections.abc import Mapping

FAILURE_POLICIES = ("slow", "fast")
TRAINER = "QuantizeTrainer"
"""Id of the component that several machines can share."""

# https://github.com/distribution/reference/blob/v0.6.0/regexp.go, with a tag or a digest demanded.
_IMAGE = re.compile(
    r"(?:[a-zA-Z0-9](?:[a-zA-Z0-9.-]*[a-zA-Z0-9])?(?::[0-9]+)?/)?"
    r"[a-z0-9]+(?:[._-]+[a-z0-9]+)*(?:/[a-z0-9]+(?:[._-]+[a-z0-9]+)*)*"
    r"(?::[A-Za-z0-9_][A-Za-z0-9_.-]{0,127})?(?:@sha256:[0-9a-f]{64})?"
)
# What both allow: https://cloud.google.com/resource-manager/docs/labels-overview#requirements and
# https://kubernetes.io/docs/concepts/overview/working-with-objects/labels/#syntax-and-character-set
_LABEL = re.compile(r"[a-z]([a-z0-9_-]{0,61}[a-z0-9])?")
_MOST_LABELS = 60  # of 64, as TFX has some of its own
_OURS = "tfx_"
_ACCELERATOR = re.compile(r"([A-Za-z0-9][A-Za-z0-9._/-]*)?")
# https://cloud.google.com/vertex-ai/docs/training/configure-compute#machine-types
_MACHINE_TYPE = re.compile(r"[a-z][a-z0-9]*(-[a-z0-9]+)+")
_LABEL_VALUE = re.compile(r"([a-z0-9]([a-z0-9_-]{0,61}[a-z0-9])?)?")


@dataclasses.dataclass(frozen=True, kw_only=True, slots=True)
class Resources:
    """What one container asks for; 0 and "" leave it to the service.

    A compiled pipeline names no machine type: Vertex takes the smallest machine that has all of this, and Kubernetes a
    node that does. Of training on several machines see Deployment.

    Attributes:
      cpu_cores: CPU limit.
      memory_gb: Memory limit, in units of 1e9 bytes.
      accelerator: Type of accelerator as the service calls it: "NVIDIA_TESLA_T4" on Vertex, "nvidia.com/gpu" on
        Kubeflow.
      accelerator_count: How many of them.
    """

    cpu_cores: float = 0
    memory_gb: float = 0
    accelerator: str = ""
    accelerator_count: int = 0

    def __post_init__(self) -> None:
        """Raises ValueError for amounts that cannot be and for an accelerator without a count or the reverse."""
        for name in ("cpu_cores", "memory_gb", "accelerator_count"):
            if not 0 <= getattr(self, name) < math.inf:
                raise ValueError(f"resources: {name}={getattr(self, name)}, expected 0 or more")
        if not _ACCELERATOR.fullmatch(self.accelerator):
            raise ValueError(f"resources: accelerator={self.accelerator!r}, expected a name such as 'NVIDIA_TESLA_T4'")
        if bool(self.accelerator) != bool(self.accelerator_count):
            raise ValueError(
                f"resources: accelerator={self.accelerator!r} with accelerator_count={self.accelerator_count}; give"
                " both or neither"
            )

    def to_spec(self) -> dict[str, object]:
        """Returns the JSON form of kfp's ResourceSpec; empty where nothing is asked for."""
        spec: dict[str, object] = {}
        if self.cpu_cores:
            spec["cpuLimit"] = float(self.cpu_cores)
        if self.memory_gb:
            spec["memoryLimit"] = float(self.memory_gb)
        if self.accelerator:
            spec["accelerator"] = {"type": self.accelerator, "count": str(self.accelerator_count)}
        return spec


@dataclasses.dataclass(frozen=True, kw_only=True, slots=True)
class Deployment:
    """How a pipeline's containers run on Vertex AI Pipelines or Kubeflow Pipelines.

    Attributes:
      image: Container image of all components, with a tag or a digest; made by infra/Dockerfile.
      images: Images of single components, by the component's id.
      resources: What each container asks for.
      component_resources: The same for single components, by the component's id; replaces `resources` for them.
      service_account: Whom the containers run as: on Vertex the email address of a Google service account, on Kubeflow
        the name of a Kubernetes one; "" for the service's default.
      labels: Labels of the run.
      cache: Whether tasks may take over the outputs of earlier ones.
      failure_policy: After a failure, "slow" lets run what does not depend on it, "fast" starts nothing new. Vertex's.
      retries: How often a failed task is tried again.
      retry_backoff_s: Seconds before the first of these tries; doubled for each further one.
      training_machines: How many machines train together, each with the accelerators of QuantizeTrainer's resources;
        more than 1 with distribution "multi_worker_mirrored" alone. Vertex's.
      training_machine_type: What each of several is, such as "n1-standard-8"; it says how many cores and how much
        memory it has.
    """

    image: str = ""
    images: Mapping[str, str] = dataclasses.field(default_factory=dict)
    resources: Resources = dataclasses.field(default_factory=Resources)
    component_resources: Mapping[str, Resources] = dataclasses.field(default_factory=dict)
    service_account: str = ""
    labels: Mapping[str, str] = dataclasses.field(default_factory=dict)
    cache: bool = True
    failure_policy: str = "slow"
    retries: int = 1
    retry_backoff_s: int = 60
    training_machines: int = 1
    training_machine_type: str = ""

    def __post_init__(self) -> None:
        """Raises one ValueError for all that is wrong."""
        wrong = [
            f"image {image!r} is no image reference with a tag or digest, such as 'registry/name:1.0'"
            for image in filter(None, [self.image, *self.images.values()])
            if not is_image(image)
        ]
        wrong += [
            f"label {name!r}={value!r} (lowercase letters, digits, '-' and '_', at most 63, a letter first)"
            for name, value in self.labels.items()
            if not (_LABEL.fullmatch(name) and _LABEL_VALUE.fullmatch(value))
        ]
        wrong += [
            f"label {name!r} (those that begin with '{_OURS}' are not yours)"
            for name in self.labels
            if name.startswith(_OURS)
        ]
        if len(self.labels) > _MOST_LABELS:
            wrong.append(f"{len(self.labels)} labels (at most {_MOST_LABELS})")
        if self.failure_policy not in FAILURE_POLICIES:
            wrong.append(f"failure_policy={self.failure_policy!r} (one of {', '.join(FAILURE_POLICIES)})")
        if self.retries < 0:
            wrong.append(f"retries={self.retries} (0 or more)")
        if self.retry_backoff_s < 1:
            wrong.append(f"retry_backoff_s={self.retry_backoff_s} (at least 1)")
        wrong += self._wrong_machines()
        if wrong:
            raise ValueError(f"deployment: {'; '.join(wrong)}")

    def _wrong_machines(self) -> list[str]:
        machines, kind = self.training_machines, self.training_machine_type
        if machines < 1:
            return [f"training_machines={machines} (at least 1)"]
        if machines == 1:
            return (
                [f'training_machine_type={kind!r} with one machine (""; Vertex chooses by resources)'] if kind else []
            )
        own = self.component_resources.get(TRAINER)
        wrong = []
        if not _MACHINE_TYPE.fullmatch(kind):
            wrong.append(f"training_machine_type={kind!r} (a type of machine, such as 'n1-standard-8')")
        if own and (own.cpu_cores or own.memory_gb):
            wrong.append(f"cpu_cores or memory_gb of {TRAINER} (none; the training_machine_type of several says them)")
        return wrong

    def resources_of(self, component_id: str) -> Resources:
        """Returns what the container of a component asks for."""
        return self.component_resources.get(component_id, self.resources)

    def component_ids(self) -> frozenset[str]:
        """Returns the ids of the components that have settings of their own."""
        return frozenset({*self.images, *self.component_resources})


def is_image(reference: str) -> bool:
    """Returns whether this is a container image reference with a tag or a digest."""
    name = reference.rsplit("/", 1)[-1]
    return bool(_IMAGE.fullmatch(reference)) and (":" in name or "@" in name)
