"""Finding the last blessed model in ML Metadata."""

from typing import Any

from tfx import types
from tfx.components.evaluator import constants
from tfx.dsl.components.common import resolver

ORIGIN_KEY = "origin"
"""The custom property of a blessing that says of which pipeline, task and target its model is."""


class LastBlessedModelStrategy(resolver.ResolverStrategy):
    """Finds the model of the newest blessing of one origin, and that blessing.

    TFX's own LatestBlessedModelStrategy takes the newest model that was ever blessed, of whatever task and target.
    Runners on this machine give either of them the models of their own pipeline alone.
    """

    def __init__(self, origin: str) -> None:
        """Remembers the origin, as QuantizedEvaluator writes it into a blessing."""
        self._origin = origin

    def resolve_artifacts(self, store: Any, input_dict: dict[str, list[types.Artifact]]) -> dict[str, Any]:
        """Returns at most one model and its blessing.

        Args:
          store: ML Metadata.
          input_dict: Models under "model", blessings under "model_blessing".
        """
        models = {model.id: model for model in input_dict["model"]}
        for blessing in sorted(input_dict["model_blessing"], key=lambda blessing: -blessing.id):
            model = models.get(blessing.get_int_custom_property(constants.ARTIFACT_PROPERTY_CURRENT_MODEL_ID_KEY))
            if model is not None and self._is_meant(blessing):
                return {"model": [model], "model_blessing": [blessing]}
        return {"model": [], "model_blessing": []}

    def _is_meant(self, blessing: types.Artifact) -> bool:
        blessed = blessing.get_int_custom_property(constants.ARTIFACT_PROPERTY_BLESSED_KEY)
        return blessed == constants.BLESSED_VALUE and blessing.get_string_custom_property(ORIGIN_KEY) == self._origin
