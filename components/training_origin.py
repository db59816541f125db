"""What a training was given, as facts of its models: data, schema, transform, code, earlier models."""

from pathlib import Path
from typing import Any

from tfx import types
from tfx.types import artifact_utils

from components import example_files, model_artifact
from components.quantization import toolchain
from components.quantization.file_hash import sha256
from components.quantization.origin_facts import EARLIER_MODELS
from components.transform_hash import transform_sha256


def training_origin(
    input_dict: dict[str, list[types.Artifact]], exec_properties: dict[str, Any], train: Path, evaluation: Path
) -> dict[str, model_artifact.Fact]:
    """Returns the facts.

    Args:
      input_dict: The trainer's inputs.
      exec_properties: Its properties.
      train: The staged split to train on.
      evaluation: The staged split to evaluate on.
    """
    facts: dict[str, model_artifact.Fact] = {
        "task": exec_properties["module"],
        "task_sha256": exec_properties["module_sha256"],
        "training_examples_sha256": example_files.staged_fingerprint(train),
        "evaluation_examples_sha256": example_files.staged_fingerprint(evaluation),
        **toolchain.process_facts(),
    }
    with model_artifact.local_directory(artifact_utils.get_single_uri(input_dict["schema"])) as directory:
        facts["schema_sha256"] = sha256(directory)
    with model_artifact.local_directory(artifact_utils.get_single_uri(input_dict["transform_graph"])) as directory:
        facts["transform_sha256"] = transform_sha256(directory)
    for key in EARLIER_MODELS:
        if input_dict.get(key):
            earlier = artifact_utils.get_single_instance(input_dict[key])
            facts[f"{key}_sha256"] = earlier.get_string_custom_property("sha256")
    return facts
