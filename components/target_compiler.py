"""TargetCompiler: an integer TFLite model -> the file for a target, with a report."""

import hashlib
from typing import Any

from tfx import types
from tfx.dsl.components.base import base_component, base_executor, executor_spec
from tfx.types import artifact_utils, channel_utils, component_spec, standard_artifacts

from components import model_artifact
from components.quantization import toolchain
from components.quantization.contract.device_files import carry_device_files
from components.targets import load_target, require_when_missing

REPORT_FILE = "compile_report.json"


class Executor(base_executor.BaseExecutor):
    """Compiles in a subprocess of the target's making, or analyses."""

    def Do(
        self,
        input_dict: dict[str, list[types.Artifact]],
        output_dict: dict[str, list[types.Artifact]],
        exec_properties: dict[str, Any],
    ) -> None:
        """Compiles and publishes model and report."""
        source = artifact_utils.get_single_instance(input_dict["model"])
        output = artifact_utils.get_single_instance(output_dict["compiled_model"])
        target = load_target(exec_properties["target"])
        tflite = model_artifact.read_tflite(source)
        model = target.compile(tflite, exec_properties["when_missing"])
        with model_artifact.local_serving(source) as serving, model_artifact.staged_output(output) as directory:
            carry_device_files(serving, model.tflite, model_artifact.serving_directory(directory))
            (directory / REPORT_FILE).write_text(model.report.to_json())
            facts: dict[str, model_artifact.Fact] = {
                **model_artifact.read_facts(source),  # scheme, versions and so on still hold
                "kind": "compiled" if model.report.compiled else "not compiled",
                "target": target.name,
                "compiled": int(model.report.compiled),
                "compiler": model.report.tool,
                "ops_on_target": model.report.ops_on_target,
                "ops_on_cpu": model.report.ops_on_cpu,
                "sha256": hashlib.sha256(model.tflite).hexdigest(),
                "parent_sha256": hashlib.sha256(tflite).hexdigest(),
                "size_bytes": len(model.tflite),
            }
            model_artifact.record_facts(output, directory, facts)


class TargetCompilerSpec(component_spec.ComponentSpec):
    """Inputs, outputs and parameters of TargetCompiler."""

    PARAMETERS = {
        "target": component_spec.ExecutionParameter(type=str),
        "when_missing": component_spec.ExecutionParameter(type=str),
        "compiler": component_spec.ExecutionParameter(type=str),
        "toolchain": component_spec.ExecutionParameter(type=str),
    }
    INPUTS = {"model": component_spec.ChannelParameter(type=standard_artifacts.Model)}
    OUTPUTS = {"compiled_model": component_spec.ChannelParameter(type=standard_artifacts.Model)}


class TargetCompiler(base_component.BaseComponent):
    """Compiles an integer TFLite model for a target.

    Where the target's compiler is missing, the model is passed on as it is, with an analysis of where its ops would
    run, and marked as not compiled. Output `compiled_model`: a Model with `Format-Serving/tflite`, the input's
    contract, golden vectors and so on beside it, and `compile_report.json`.
    """

    SPEC_CLASS = TargetCompilerSpec
    EXECUTOR_SPEC = executor_spec.ExecutorClassSpec(Executor)

    def __init__(self, *, model: types.BaseChannel, target: str, when_missing: str = "analyze") -> None:
        """Declares the component.

        Args:
          model: An integer TFLite model, as TFLiteIntConverter made it.
          target: Name of the target.
          when_missing: What to do without a compiler: "analyze", or "fail".

        Raises:
          ValueError: If there is no such target or `when_missing` is neither.
        """
        loaded = load_target(target)
        require_when_missing(when_missing)
        super().__init__(
            TargetCompilerSpec(
                model=model,
                target=target,
                when_missing=when_missing,
                compiler=loaded.compiler_version(),
                toolchain=toolchain.versions_json(),
                compiled_model=channel_utils.as_channel([standard_artifacts.Model()]),
            )
        )
