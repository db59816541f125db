"""Finding the last blessed model in ML Metadata."""

from typing import Any

from tfx import types
from tfx.components.evaluator import constants
from tfx.dsl.components.common import resolver

from components.push_destination import PushDestination
from components.withdrawn_models import withdrawn_models

ORIGIN_KEY = "origin"
"""The custom property of a blessing that says of which pipeline, task and target its model is."""
MODEL_ID_KEY = "validated_model_id"
"""The custom property of an InfraBlessing that says which model was tested."""


class LastBlessedModelStrategy(resolver.ResolverStrategy):
    """Finds the model of the newest blessing of one origin, and that blessing.

    Where infra blessings are among the inputs, the newest one of the model must bless it too: what the gates let pass
    and the smoke test refused was never pushed.

    A model whose version was rolled back from is passed over, as the models after it shall be held against what is in
    use.

    TFX's own LatestBlessedModelStrategy takes the newest model that was ever blessed, of whatever task and target.
    Runners on this machine give either of them the models of their own pipeline alone.
    """

    def __init__(self, origin: str, push_uri: str = "", not_of_span: int | None = None) -> None:
        """Remembers what is meant.

        Args:
          origin: As QuantizedEvaluator writes it into a blessing.
          push_uri: Where models of that origin are pushed; "" for nowhere.
          not_of_span: The newest span of models that are passed over, and of which rollbacks count for nothing: that of
            a run which is repeated, and is to find what it found the first time; None for none.
        """
        self._origin = origin
        self._push_uri = push_uri
        self._not_of_span = not_of_span

    def resolve_artifacts(self, store: Any, input_dict: dict[str, list[types.Artifact]]) -> dict[str, Any]:
        """Returns at most one model and its blessing.

        Args:
          store: ML Metadata.
          input_dict: Models under "model", blessings under "model_blessing", perhaps those of the validator under
            "infra_blessing".
        """
        destination = PushDestination(self._push_uri) if self._push_uri else None
        withdrawn = withdrawn_models(destination, but_by_span=self._not_of_span) if destination else set()
        models = {
            model.id: model
            for model in input_dict["model"]
            if model.get_string_custom_property("content_sha256") not in withdrawn and not self._is_of_same_span(model)
        }
        validated = _validated(input_dict["infra_blessing"]) if "infra_blessing" in input_dict else None
        for blessing in sorted(input_dict["model_blessing"], key=lambda blessing: -blessing.id):
            model = models.get(blessing.get_int_custom_property(constants.ARTIFACT_PROPERTY_CURRENT_MODEL_ID_KEY))
            if model is None or not self._is_meant(blessing):
                continue
            if validated is None:
                return {"model": [model], "model_blessing": [blessing]}
            if model.id in validated:
                return {"model": [model], "model_blessing": [blessing], "infra_blessing": [validated[model.id]]}
        return {name: [] for name in input_dict}

    def _is_of_same_span(self, model: types.Artifact) -> bool:
        if self._not_of_span is None or not model.has_custom_property("examples_span"):
            return False
        return self._not_of_span == model.get_int_custom_property("examples_span")

    def _is_meant(self, blessing: types.Artifact) -> bool:
        return _is_blessed(blessing) and blessing.get_string_custom_property(ORIGIN_KEY) == self._origin


def _validated(blessings: list[types.Artifact]) -> dict[int, types.Artifact]:
    """The newest infra blessing of each model, if it blesses the model."""
    newest = {one.get_int_custom_property(MODEL_ID_KEY): one for one in sorted(blessings, key=lambda one: one.id)}
    return {model: blessing for model, blessing in newest.items() if _is_blessed(blessing)}


def _is_blessed(blessing: types.Artifact) -> bool:
    return blessing.get_int_custom_property(constants.ARTIFACT_PROPERTY_BLESSED_KEY) == constants.BLESSED_VALUE
