"""EdgeTPUGroupCompiler: models for one Edge TPU, or one model for several -> one artifact of files."""

import hashlib
import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from tfx import types
from tfx.dsl.components.base import base_component, base_executor, executor_spec
from tfx.types import artifact_utils, channel_utils, component_spec, standard_artifacts

from components import model_artifact
from components.quantization import toolchain
from components.quantization.contract.device_files import carry_device_files
from components.target_compiler import kept_if_it_fails
from components.targets import COMPILER_DIR, CompiledModel, Options, options_json
from components.targets.edge_tpu import TARGET, CompilerOptions
from components.targets.edge_tpu.group import GROUP_FILE, CompiledGroup, GroupMember, require_members


class Executor(base_executor.BaseExecutor):
    """Compiles the models together, in the order that sends the fewest parameters, or the only one in segments."""

    def Do(
        self,
        input_dict: dict[str, list[types.Artifact]],
        output_dict: dict[str, list[types.Artifact]],
        exec_properties: dict[str, Any],
    ) -> None:
        """Compiles and publishes the files, each with its report and what a device needs beside it."""
        sources = {name: artifact_utils.get_single_instance(artifacts) for name, artifacts in input_dict.items()}
        output = artifact_utils.get_single_instance(output_dict["compiled_group"])
        tflites = {name: model_artifact.read_tflite(source) for name, source in sources.items()}
        calls = json.loads(exec_properties["calls_per_second"])
        with model_artifact.staged_output(output) as directory:
            written = directory / COMPILER_DIR
            with kept_if_it_fails(output, written):
                group = _compiled(tflites, calls, exec_properties["options"], written)
            serving = model_artifact.serving_directory(directory)
            for name, model in group.models.items():
                _write(model, sources.get(name), serving / name)
            files = {name: f"{name}/{model_artifact.TFLITE_FILE}" for name in group.models}
            (serving / GROUP_FILE).write_text(group.manifest(files))
            model_artifact.record_facts(output, directory, _facts(group, tflites))


def _compiled(tflites: Mapping[str, bytes], calls: Mapping[str, float], options: str, written: Path) -> CompiledGroup:
    if CompilerOptions.from_json(options).num_segments > 1:
        (tflite,) = tflites.values()
        return TARGET.compile_segments(tflite, options, written)
    members = [GroupMember(name=name, tflite=tflite, calls_per_second=calls[name]) for name, tflite in tflites.items()]
    return TARGET.compile_group(members, options, written)


def _write(model: CompiledModel, source: types.Artifact | None, directory: Path) -> None:
    """Writes a file with its report and, unless it is a segment, the device files of its source."""
    directory.mkdir()
    (directory / model_artifact.COMPILE_REPORT_FILE).write_text(model.report.to_json())
    if source is None:
        (directory / model_artifact.TFLITE_FILE).write_bytes(model.tflite)
        return
    with model_artifact.local_serving(source) as serving:
        carry_device_files(serving, model.tflite, directory)


def _facts(group: CompiledGroup, tflites: Mapping[str, bytes]) -> dict[str, model_artifact.Fact]:
    """What lineage shows: of each file its hash and its memory, and the hashes of what was compiled."""
    first = next(iter(group.models.values())).report
    facts: dict[str, model_artifact.Fact | None] = {
        "kind": "compiled group",
        "target": TARGET.name,
        "compiled": 1,
        "compiler": first.tool,
        "order": ",".join(group.models),
        "traffic_bytes_per_second": group.traffic_bytes_per_second,
    }
    for name, model in group.models.items():
        facts[f"{model_artifact.SHA256_OF}{name}"] = hashlib.sha256(model.tflite).hexdigest()
        facts[f"cached_bytes_of_{name}"] = model.report.memory.cached_bytes
        facts[f"streamed_bytes_of_{name}"] = model.report.memory.streamed_bytes
    facts |= {f"parent_sha256_of_{name}": hashlib.sha256(tflite).hexdigest() for name, tflite in tflites.items()}
    return {name: value for name, value in facts.items() if value is not None}


class EdgeTPUGroupCompilerSpec(component_spec.ComponentSpec):
    """Output and parameters of EdgeTPUGroupCompiler; its inputs are the models by their names."""

    PARAMETERS = {
        "options": component_spec.ExecutionParameter(type=str),
        "calls_per_second": component_spec.ExecutionParameter(type=str),
        "compiler": component_spec.ExecutionParameter(type=str),
        "toolchain": component_spec.ExecutionParameter(type=str),
    }
    INPUTS: dict[str, component_spec.ChannelParameter] = {}
    OUTPUTS = {"compiled_group": component_spec.ChannelParameter(type=standard_artifacts.Model)}

    @classmethod
    def of(cls, names: Mapping[str, Any]) -> "type[EdgeTPUGroupCompilerSpec]":
        """Returns the specification of a component with these inputs."""
        inputs = {name: component_spec.ChannelParameter(type=standard_artifacts.Model) for name in names}
        return type(cls.__name__, (cls,), {"INPUTS": inputs})


class EdgeTPUGroupCompiler(base_component.BaseComponent):
    """Compiles models together, so that their parameters share the memory of one Edge TPU, or one model for several.

    Output `compiled_group`: a Model with `Format-Serving/<name>/tflite` and the input's contract, golden vectors and so
    on beside each, its `compile_report.json`, and `Format-Serving/group.json`, which says in which order they got the
    memory; the stock Pusher pushes it as one directory. With `num_segments` the names are those of the segments, which
    `group.json` has in the order in which they run, and there is no contract beside them: it is that of the model.
    `compiler/` has what the compiler wrote. It takes a compiler: how models share the memory is not predicted.
    """

    SPEC_CLASS = EdgeTPUGroupCompilerSpec
    EXECUTOR_SPEC = executor_spec.ExecutorClassSpec(Executor)

    def __init__(
        self,
        *,
        models: Mapping[str, types.BaseChannel],
        calls_per_second: Mapping[str, float] | None = None,
        options: Options | None = None,
    ) -> None:
        """Declares the component.

        Args:
          models: Two or more integer TFLite models by name, or one with `num_segments`, as TFLiteIntConverter made
            them or as a resolver found those that were blessed last.
          calls_per_second: How often each of several runs, of which the ratios count; None for all alike.
          options: `components.targets.edge_tpu.CompilerOptions`; None for the defaults.

        Raises:
          ValueError: If there are fewer than two models, or several with `num_segments`, a name is no file name or one
            of this component's parameters, or a rate is none or of no model.
        """
        ours = {*EdgeTPUGroupCompilerSpec.PARAMETERS, *EdgeTPUGroupCompilerSpec.OUTPUTS, "self"}
        taken = sorted(models.keys() & ours)
        if taken:
            raise ValueError(f"models: got {', '.join(taken)}, which the component calls something else; rename them")
        unknown = sorted((calls_per_second or {}).keys() - models.keys())
        if unknown:
            raise ValueError(f"calls_per_second: got {', '.join(unknown)}, expected some of {', '.join(models)}")
        calls = {name: float((calls_per_second or {}).get(name, 1.0)) for name in models}
        members = [GroupMember(name=name, tflite=b"", calls_per_second=rate) for name, rate in calls.items()]
        chosen = CompilerOptions.from_json(options_json(options))
        if chosen.num_segments == 1:
            require_members(members)
        elif len(members) != 1 or calls_per_second:
            raise ValueError(
                f"num_segments: got {', '.join(models) or 'no model'}, expected one model to split, without"
                " calls_per_second"
            )
        written = chosen.to_json()
        super().__init__(
            EdgeTPUGroupCompilerSpec.of(models)(
                **models,
                options=written,
                calls_per_second=json.dumps(calls, sort_keys=True),
                compiler=TARGET.compiler_version(written),
                toolchain=toolchain.versions_json(),
                compiled_group=channel_utils.as_channel([standard_artifacts.Model()]),
            )
        )
