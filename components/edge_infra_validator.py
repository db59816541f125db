"""EdgeInfraValidator: whether an integer TFLite model runs where it will be served -> InfraBlessing."""

import contextlib
import logging
from typing import Any

from tfx import types
from tfx.dsl.components.base import base_component, base_executor, executor_spec
from tfx.types import artifact_utils, channel_utils, component_spec, standard_artifacts

from components import model_artifact
from components.blessing import publish_verdict
from components.evaluation.smoke import smoke_test
from components.evaluation.smoke_settings import Smoke, SmokeSettings
from components.last_blessed import MODEL_ID_KEY
from components.quantization import toolchain
from components.quantization.conversion.profiles import load_profile

# As the stock InfraValidator has them, in tfx/components/infra_validator/executor.py.
_BLESSING_FILES = ("INFRA_BLESSED", "INFRA_NOT_BLESSED")
_LOGGER = logging.getLogger(__name__)


class Executor(base_executor.BaseExecutor):
    """Runs the model in processes of its own, which may crash without harm."""

    def Do(
        self,
        input_dict: dict[str, list[types.Artifact]],
        output_dict: dict[str, list[types.Artifact]],
        exec_properties: dict[str, Any],
    ) -> None:
        """Tests the model, then writes the blessing as the stock InfraValidator does, with reasons."""
        model = artifact_utils.get_single_instance(input_dict["model"])
        blessing = artifact_utils.get_single_instance(output_dict["blessing"])
        smoke = Smoke.from_json(exec_properties["smoke"])
        with contextlib.ExitStack() as stack:
            serving = stack.enter_context(model_artifact.local_serving(model))
            pushed, judged = None, {"model": model}
            if input_dict.get("compiled_model"):
                judged["compiled_model"] = artifact_utils.get_single_instance(input_dict["compiled_model"])
                pushed = stack.enter_context(model_artifact.local_serving(judged["compiled_model"]))
            verdict = smoke_test(serving, smoke, pushed)
        publish_verdict(blessing, verdict, _BLESSING_FILES, judged)
        blessing.set_int_custom_property(MODEL_ID_KEY, model.id)
        for reason in verdict.reasons:
            if reason.refuses:
                _LOGGER.warning("%s", reason.text)


class EdgeInfraValidatorSpec(component_spec.ComponentSpec):
    """Inputs, outputs and parameters of EdgeInfraValidator."""

    PARAMETERS = {
        "smoke": component_spec.ExecutionParameter(type=str),
        "toolchain": component_spec.ExecutionParameter(type=str),
    }
    INPUTS = {
        "model": component_spec.ChannelParameter(type=standard_artifacts.Model),
        "compiled_model": component_spec.ChannelParameter(type=standard_artifacts.Model, optional=True),
    }
    OUTPUTS = {"blessing": component_spec.ChannelParameter(type=standard_artifacts.InfraBlessing)}


class EdgeInfraValidator(base_component.BaseComponent):
    """Tests an integer TFLite model in processes of its own, before it is pushed.

    It must load in a fresh process with the default, the optimized and the reference kernels, give its golden outputs,
    the same bits each time and in each process, and stay within budgets; so must the file that is pushed, unless it has
    an op that no CPU runs, when it is audited and held against the contract. Output `blessing`: an InfraBlessing that
    the stock Pusher honours, with reasons, in verdict.json as components/evaluation/verdict.py has them.
    """

    SPEC_CLASS = EdgeInfraValidatorSpec
    EXECUTOR_SPEC = executor_spec.ExecutorClassSpec(Executor)

    def __init__(
        self,
        *,
        model: types.BaseChannel,
        compiled_model: types.BaseChannel | None = None,
        profile: str = "edge_tpu",
        settings: SmokeSettings | None = None,
    ) -> None:
        """Declares the component.

        Args:
          model: An integer TFLite model, as TFLiteIntConverter made it.
          compiled_model: What was compiled of it, and will be pushed.
          profile: Name of the target whose rules the files must keep.
          settings: Budgets, and what a run may take.

        Raises:
          ValueError: If there is no such profile.
        """
        load_profile(profile)
        smoke = Smoke.of(profile, settings or SmokeSettings())
        super().__init__(
            EdgeInfraValidatorSpec(
                model=model,
                compiled_model=compiled_model,
                smoke=smoke.to_json(),
                toolchain=toolchain.versions_json(),
                blessing=channel_utils.as_channel([standard_artifacts.InfraBlessing()]),
            )
        )
