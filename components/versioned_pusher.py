"""The executor of the stock Pusher that pushes versions: named by content, verified, switched to at once."""

import contextlib
import os
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from tfx import types
from tfx.components.pusher import executor as stock
from tfx.dsl.io import fileio
from tfx.proto import pusher_pb2
from tfx.types import artifact_utils, standard_component_specs
from tfx.utils import io_utils, proto_utils

from components import model_artifact
from components.delivery.history import Entry, version_replaced
from components.delivery.manifest import REPORT_FILE, build_manifest
from components.push_destination import PushDestination, utc_now
from components.quantization.file_hash import sha256 as sha256_of


class Executor(stock.Executor):
    """Pushes a blessed model as a version; a refused one is not pushed, as by the stock executor.

    Input, output and blessings are those of the stock Pusher: `pushed`, `pushed_destination`, which is the version's
    directory, and `pushed_version` are custom properties of the PushedModel, whose files are a copy of the model; so
    are `pushed_at`, the `sha256` of the version's file and that of its parent, the model, and which version it
    replaced. The page that the evaluator left beside its verdict is put beside the model in both places. Give it to the
    Pusher by `custom_executor_spec`. An attempt that was killed may be repeated: it ends in the same version.
    """

    def Do(
        self,
        input_dict: dict[str, list[types.Artifact]],
        output_dict: dict[str, list[types.Artifact]],
        exec_properties: dict[str, Any],
    ) -> None:
        """Pushes the model, last of all switching to it."""
        self._log_startup(input_dict, output_dict, exec_properties)
        pushed = artifact_utils.get_single_instance(output_dict[standard_component_specs.PUSHED_MODEL_KEY])
        destination = PushDestination(_base_directory(exec_properties))
        if not self.CheckBlessing(input_dict):
            self._MarkNotPushed(pushed)
            return
        uri = self.GetModelPath(input_dict)
        models = input_dict.get(standard_component_specs.MODEL_KEY)
        context = self._context
        with model_artifact.local_directory(uri) as directory:
            _require_blessed_file(directory / model_artifact.TFLITE_FILE, input_dict)
            _require_group_files(directory, models or [])
            manifest = build_manifest(
                directory,
                facts=model_artifact.read_facts(artifact_utils.get_single_instance(models)) if models else {},
                run_id=(context and context.pipeline_run_id) or "",
                pushed_at=utc_now(),
            )
            io_utils.copy_dir(uri, pushed.uri)  # the archive, as the stock executor keeps it
            report = _report(input_dict)
            if report:
                io_utils.write_string_file(os.path.join(pushed.uri, REPORT_FILE), report)
            known = destination.history()
            version = destination.push(directory, manifest, report)
            sha256 = _sha256_of_version(destination, version) or sha256_of(directory)
        self._MarkPushed(pushed, pushed_destination=destination.path(version), pushed_version=version)
        parent = artifact_utils.get_single_instance(models).get_string_custom_property("sha256") if models else ""
        replaced = _replaced(destination, known, version, manifest.run_id)
        for name, value in (
            ("pushed_at", manifest.pushed_at),
            ("sha256", sha256),
            ("parent_sha256", parent),
            ("replaced_version", replaced),
            ("replaced_sha256", _sha256_of_version(destination, replaced)),
        ):
            pushed.set_string_custom_property(name, value)


def _require_blessed_file(path: Path, input_dict: dict[str, list[types.Artifact]]) -> None:
    """Raises ValueError if a TFLite file is not the one that its artifact and its blessings tell of.

    Artifacts that no component of ours made have no hashes, and nothing is compared.
    """
    if not path.is_file():
        return
    found = sha256_of(path)
    keys = {
        standard_component_specs.MODEL_KEY: ("sha256",),
        standard_component_specs.MODEL_BLESSING_KEY: ("compiled_model_sha256", "model_sha256"),
        standard_component_specs.INFRA_BLESSING_KEY: ("compiled_model_sha256", "model_sha256"),
    }
    for key, names in keys.items():
        for artifact in input_dict.get(key) or []:
            known = [value for name in names if (value := artifact.get_string_custom_property(name))]
            if known and found not in known:
                raise ValueError(
                    f"{key}: it is of a file with sha256 {known[0]}, and {path.name} has {found}; the file was changed"
                    " since, or another model's blessing is connected: nothing was pushed"
                )


def _require_group_files(directory: Path, models: Sequence[types.Artifact]) -> None:
    """Raises ValueError if a file of several that were compiled together is not the one that the compiler made."""
    for artifact in models:
        for key, value in artifact.mlmd_artifact.custom_properties.items():
            path = directory / key.removeprefix(model_artifact.SHA256_OF) / model_artifact.TFLITE_FILE
            if key.startswith(model_artifact.SHA256_OF) and (found := sha256_of(path)) != value.string_value:
                raise ValueError(
                    f"{path.parent.name}/{path.name}: got sha256 {found}, expected {value.string_value}, which the"
                    " compiler made; the file was changed since: nothing was pushed"
                )


def _replaced(destination: PushDestination, known: Sequence[Entry], version: str, run_id: str) -> str:
    """The version that a push replaced; "" if it made none the latest that was not.

    Args:
      destination: Where it was pushed to.
      known: The moves of the pointer before.
      version: What is the latest now.
      run_id: The run; "" for none. An attempt of it that was killed may have made the move.
    """
    moves = destination.history()
    made = [move for move in moves if move not in known and move.version == version]
    move = destination.move_of(version, run_id) or next(iter(made), None)
    return version_replaced(moves, move) if move else ""


def _sha256_of_version(destination: PushDestination, version: str) -> str:
    """The hash of a version's TFLite file; empty if it has none or is damaged.

    It need not be that of the model that was to be pushed: one that differs in its run alone may have been there.
    """
    with contextlib.suppress(ValueError):  # of a damaged manifest
        manifest = destination.manifest(version) if version else None
        if manifest and (digest := manifest.files.get(model_artifact.TFLITE_FILE)):
            return digest.sha256
    return ""


def _report(input_dict: dict[str, list[types.Artifact]]) -> str:
    """The page that lies beside the evaluator's verdict; "" if there is none."""
    for blessing in input_dict.get(standard_component_specs.MODEL_BLESSING_KEY) or []:
        path = os.path.join(blessing.uri, REPORT_FILE)
        if fileio.exists(path):
            text: str = io_utils.read_string_file(path)
            return text
    return ""


def _base_directory(exec_properties: dict[str, Any]) -> str:
    destination = pusher_pb2.PushDestination()
    proto_utils.json_to_proto(exec_properties[standard_component_specs.PUSH_DESTINATION_KEY], destination)
    if destination.WhichOneof("destination") != "filesystem":
        raise ValueError("push_destination: expected a filesystem; other destinations have executors of their own")
    filesystem = destination.filesystem
    if filesystem.versioning != pusher_pb2.Versioning.AUTO:
        raise ValueError("push_destination: versions are named by their content; leave versioning at AUTO")
    base_directory: str = filesystem.base_directory
    return base_directory
