"""SchemaFile: a schema that someone wrote or corrected, in place of one that is inferred."""

import hashlib

import tensorflow as tf
from tfx import types
from tfx.components.schema_gen.import_schema_gen import executor
from tfx.dsl.components.base import base_component, executor_spec
from tfx.dsl.io import fileio
from tfx.types import component_spec, standard_artifacts


class SchemaFileSpec(component_spec.ComponentSpec):
    """Parameters and output of SchemaFile."""

    PARAMETERS = {
        "schema_file": component_spec.ExecutionParameter(type=str),
        "sha256": component_spec.ExecutionParameter(type=str),
    }
    INPUTS: dict[str, component_spec.ChannelParameter] = {}
    OUTPUTS = {"schema": component_spec.ChannelParameter(type=standard_artifacts.Schema)}


class SchemaFile(base_component.BaseComponent):
    """ImportSchemaGen with the file's hash in the cache's key: a corrected schema is taken, not the cached one."""

    SPEC_CLASS = SchemaFileSpec
    EXECUTOR_SPEC = executor_spec.ExecutorClassSpec(executor.Executor)

    def __init__(self, *, schema_file: str) -> None:
        """Declares the component; raises ValueError if the file cannot be read."""
        try:
            with fileio.open(schema_file, "rb") as file:
                sha256 = hashlib.sha256(file.read()).hexdigest()
        except (OSError, tf.errors.OpError) as error:
            raise ValueError(f"schema_file {schema_file!r} cannot be read: {error}; correct the config") from error
        schema = types.Channel(type=standard_artifacts.Schema)
        super().__init__(SchemaFileSpec(schema_file=schema_file, sha256=sha256, schema=schema))
