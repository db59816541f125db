"""TargetCompiler: an integer TFLite model -> the file for a target, with a report."""

import contextlib
import hashlib
import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from tfx import types
from tfx.dsl.components.base import base_component, base_executor, executor_spec
from tfx.types import artifact_utils, channel_utils, component_spec, standard_artifacts

from components import model_artifact
from components.quantization import toolchain
from components.quantization.contract.device_files import carry_device_files
from components.targets import (
    COMPILER_DIR,
    CompiledModel,
    CompileError,
    CompileReport,
    Options,
    load_target,
    options_json,
    placed_ops,
    require_when_missing,
)


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
        with model_artifact.local_serving(source) as serving, model_artifact.staged_output(output) as directory:
            written = directory / COMPILER_DIR
            with kept_if_it_fails(output, written):
                model = target.compile(tflite, exec_properties["when_missing"], exec_properties["options"], written)
            carry_device_files(serving, model.tflite, model_artifact.serving_directory(directory))
            write_reports(model, tflite, directory)
            facts: dict[str, model_artifact.Fact] = {
                **model_artifact.read_facts(source),  # scheme, versions and so on still hold
                "kind": "compiled" if model.report.compiled else "not compiled",
                "target": target.name,
                **_facts(model.report),
                "sha256": hashlib.sha256(model.tflite).hexdigest(),
                "parent_sha256": hashlib.sha256(tflite).hexdigest(),
                "size_bytes": len(model.tflite),
            }
            model_artifact.record_facts(output, directory, facts)


def write_reports(model: CompiledModel, tflite: bytes, directory: Path) -> None:
    """Writes the report of a model, and where each of its ops runs if that is known.

    Args:
      model: The compiled model.
      tflite: The model before.
      directory: An existing folder.
    """
    (directory / model_artifact.COMPILE_REPORT_FILE).write_text(model.report.to_json())
    if model.mapping is not None:
        placed = placed_ops(model.mapping, tflite)
        (directory / model_artifact.MAPPING_FILE).write_text(json.dumps(placed, indent=1) + "\n")


@contextlib.contextmanager
def kept_if_it_fails(output: types.Artifact, written: Path) -> Iterator[None]:
    """Keeps what a compiler wrote beside the output that there will not be, and names the place in its error.

    Args:
      output: What is being made.
      written: The folder with what the compiler writes.
    """
    try:
        yield
    except CompileError as error:
        kept = model_artifact.keep_failed(output, written, error.log)
        error.add_line(f"All that the compiler wrote is in {kept}")
        raise


def _facts(report: CompileReport) -> dict[str, model_artifact.Fact]:
    """What lineage shows of a report; what is not known is left out."""
    breaking = report.first_breaking_op
    facts: dict[str, model_artifact.Fact | None] = {
        "compiled": int(report.compiled),
        "compiler": report.tool,
        "ops_on_target": report.ops_on_target,
        "ops_on_cpu": report.ops_on_cpu,
        "macs_on_target": report.on_target.macs if report.on_target else None,
        "macs_on_cpu": report.on_cpu.macs if report.on_cpu else None,
        "target_subgraphs": report.subgraphs,
        "first_breaking_op": breaking.op if breaking else "",
        "first_breaking_layer": breaking.layer if breaking else "",
        "cached_bytes": report.memory.cached_bytes,
        "streamed_bytes": report.memory.streamed_bytes,
    }
    return {name: value for name, value in facts.items() if value is not None}


class TargetCompilerSpec(component_spec.ComponentSpec):
    """Inputs, outputs and parameters of TargetCompiler."""

    PARAMETERS = {
        "target": component_spec.ExecutionParameter(type=str),
        "when_missing": component_spec.ExecutionParameter(type=str),
        "options": component_spec.ExecutionParameter(type=str),
        "compiler": component_spec.ExecutionParameter(type=str),
        "toolchain": component_spec.ExecutionParameter(type=str),
    }
    INPUTS = {"model": component_spec.ChannelParameter(type=standard_artifacts.Model)}
    OUTPUTS = {"compiled_model": component_spec.ChannelParameter(type=standard_artifacts.Model)}


class TargetCompiler(base_component.BaseComponent):
    """Compiles an integer TFLite model for a target.

    Where the target's compiler is missing, the model is passed on as it is, with an analysis of where its ops would
    run, and marked as not compiled. Output `compiled_model`: a Model with `Format-Serving/tflite`, the input's
    contract, golden vectors and so on beside it, `compile_report.json`, `mapping.json`, and `compiler/` with what the
    compiler wrote. If the compiler fails, that is at the output's URI with ".failed" at its end, which the error names.
    """

    SPEC_CLASS = TargetCompilerSpec
    EXECUTOR_SPEC = executor_spec.ExecutorClassSpec(Executor)

    def __init__(
        self,
        *,
        model: types.BaseChannel,
        target: str,
        when_missing: str = "analyze",
        options: Options | None = None,
    ) -> None:
        """Declares the component.

        Args:
          model: An integer TFLite model, as TFLiteIntConverter made it.
          target: Name of the target.
          when_missing: What to do without a compiler: "analyze", or "fail".
          options: Options of the target's compiler, of the target's own type; None for its defaults.

        Raises:
          ValueError: If there is no such target, `when_missing` is neither, or the options are none of the target's.
        """
        loaded = load_target(target)
        require_when_missing(when_missing)
        written = loaded.require_options(options_json(options))
        super().__init__(
            TargetCompilerSpec(
                model=model,
                target=target,
                when_missing=when_missing,
                options=written,
                compiler=loaded.compiler_version(written),
                toolchain=toolchain.versions_json(),
                compiled_model=channel_utils.as_channel([standard_artifacts.Model()]),
            )
        )
