"""The last blessed model as one that an integer model is held against: whether it can be, and by which transform."""

import dataclasses
import logging
import os
from collections.abc import Mapping

from tfx import types
from tfx.dsl.io import fileio

from components import model_artifact
from components.evaluation.baseline import Origin, foreign, incompatibilities
from components.evaluation.measurements import INTEGER, LAST_BLESSED
from components.evaluation.unusable_baseline import why_unusable

_LOGGER = logging.getLogger(__name__)


@dataclasses.dataclass(frozen=True, kw_only=True, slots=True)
class Baseline:
    """What keeps the last blessed model from being compared; nothing does where all are empty.

    Attributes:
      foreign: How its origin is another.
      incompatible: How its inputs, outputs and labels are others, or that its transform is not there.
      unusable: Why it, or its transform, cannot be run.
    """

    foreign: tuple[str, ...] = ()
    incompatible: tuple[str, ...] = ()
    unusable: tuple[str, ...] = ()

    @classmethod
    def of(cls, models: Mapping[str, types.Artifact], unusable: tuple[str, ...]) -> "Baseline":
        """Compares artifacts of models by name, of which there may be no last blessed one."""
        if LAST_BLESSED not in models:
            return cls()
        for why in unusable:
            _LOGGER.warning("the last blessed model is left out, as it cannot be run: %s", why)
        ours, other = models[INTEGER], models[LAST_BLESSED]
        contracts = [model_artifact.read_contract(model) for model in (ours, other)]
        incompatible = incompatibilities(*contracts)
        transform = own_transform(ours, other)
        if transform and not fileio.exists(os.path.join(transform, "saved_model.pb")):
            incompatible += (f"it was made with another transform, and {transform}, which has that, is not there",)
        differences = foreign(origin_of(ours), origin_of(other))
        return cls(foreign=differences, incompatible=incompatible, unusable=unusable)

    def without(self, error: Exception) -> "Baseline":
        """Returns this baseline with what made a pass fail; raises the error if it is not the last blessed model's."""
        why = why_unusable(error)
        if not why:
            raise error
        _LOGGER.warning("the last blessed model is left out, and the others evaluated anew; it cannot be run: %s", why)
        return dataclasses.replace(self, unusable=(*self.unusable, why))

    def compared(self, models: Mapping[str, types.Artifact]) -> dict[str, types.Artifact]:
        """Returns the models that are evaluated: all, but the last blessed one if something keeps it from that."""
        left_out = {LAST_BLESSED} if self.foreign or self.incompatible or self.unusable else set()
        return {name: model for name, model in models.items() if name not in left_out}


def origin_of(model: types.Artifact) -> Origin:
    """Returns what TFLiteIntConverter recorded of an integer model."""
    facts = (model.get_string_custom_property(name) for name in ("pipeline", "task", "profile"))
    return Origin(**dict(zip(("pipeline", "task", "target"), facts, strict=True)))


def own_transform(model: types.Artifact, baseline: types.Artifact) -> str:
    """Returns the directory of the SavedModel whose transform the baseline was made with; "" if it is the model's own.

    What a transform has learned of its examples, such as a mean, is another in each: fed by the model's, the baseline
    would not get the inputs that it gets on a device.
    """
    ours, theirs = (one.get_string_custom_property("transform_sha256") for one in (model, baseline))
    uri = baseline.get_string_custom_property("float_model_uri")
    return os.path.join(uri, model_artifact.SERVING_DIR) if ours and theirs and ours != theirs else ""
