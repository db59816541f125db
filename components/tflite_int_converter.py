"""TFLiteIntConverter: a trained model -> a TFLite model proved to be integer-only."""

import hashlib
import logging
from pathlib import Path
from typing import Any

import tensorflow as tf
import tensorflow_transform as tft
from tensorflow_transform.tf_metadata import schema_utils
from tfx import types
from tfx.dsl.components.base import base_component, base_executor, executor_spec
from tfx.types import artifact_utils, channel_utils, component_spec, standard_artifacts
from tfx.utils import io_utils

from components import example_files, model_artifact
from components.quantization import toolchain
from components.quantization.conversion import IO_DTYPES, default_io_dtype, flatbuffer, require_io_dtype
from components.quantization.conversion import convert as conversion
from components.quantization.conversion.profiles import load_profile
from components.quantization.qat import export
from components.quantization.qat.parity import Parity, parity
from components.quantization.schemes import QuantizationScheme, load_scheme

_LOGGER = logging.getLogger(__name__)

PARITY_FILE = "parity.txt"
_CALIBRATION_BATCH = 100
_PARITY_BITS = 8  # ranges of 16-bit activations are calibrated, whatever training found
_PARITY_EXAMPLES = 32
# Kernels round differently from float arithmetic by a step or two; more is worth a look.
_PARITY_BOUND_LSB = 2.0
_LARGEST_DB = 200.0  # in place of infinity, which JSON has no number for


class Executor(base_executor.BaseExecutor):
    """Converts in this process; publishes only what passed the proof."""

    def Do(
        self,
        input_dict: dict[str, list[types.Artifact]],
        output_dict: dict[str, list[types.Artifact]],
        exec_properties: dict[str, Any],
    ) -> None:
        """Samples the representative dataset, converts and proves."""
        source = artifact_utils.get_single_instance(input_dict["model"])
        output = artifact_utils.get_single_instance(output_dict["tflite_model"])
        scheme = _scheme(source, exec_properties)
        io_dtype = exec_properties["io_dtype"] or default_io_dtype(scheme)
        sample = example_files.sample_split(
            input_dict["examples"],
            exec_properties["split"],
            exec_properties["representative_examples"],
            exec_properties["seed"],
        )
        batches = _batches(sample, _feature_spec(input_dict))
        with model_artifact.local_saved_model(source) as saved_model:
            tflite = conversion.convert(
                saved_model,
                scheme,
                representative_dataset=batches,
                profile=exec_properties["profile"],
                io_dtype=io_dtype,
            )
            found = _parity(saved_model, scheme, tflite, batches[0])
        with model_artifact.staged_output(output) as directory:
            model_artifact.write_tflite(directory, tflite)
            if found is not None:
                (directory / PARITY_FILE).write_text(f"{found}\n")
            facts = _facts(tflite, source, scheme, exec_properties["profile"])
            model_artifact.record_facts(output, directory, facts | _parity_facts(found))


def _parity(saved_model: Path, scheme: QuantizationScheme, tflite: bytes, batch: dict[str, Any]) -> Parity | None:
    """How far the file is from what training computed; None for ranges that the converter found by itself."""
    if scheme.activation_bits != _PARITY_BITS:
        return None
    try:
        model = export.load_quantized_model(saved_model)
        found = parity(model, tflite, [{name: batch[name][:_PARITY_EXAMPLES] for name in model.input_names}])
    except ValueError as error:  # a model of another maker, or without fake quantization; the proof has been made
        _LOGGER.info("parity is not measured: %s", error)
        return None
    first = found.first_over(_PARITY_BOUND_LSB)
    where = "nowhere" if first is None else f"first at {first.name}, by {first.max_lsb:.1f} steps"
    _LOGGER.info("parity with training: over %g steps of the integers %s", _PARITY_BOUND_LSB, where)
    return found


def _parity_facts(found: Parity | None) -> dict[str, model_artifact.Fact]:
    if found is None or not found.tensors:
        return {}
    first, last = found.first_over(_PARITY_BOUND_LSB), found.tensors[-1]
    return {
        "parity_output_lsb": last.max_lsb,
        "parity_output_sqnr_db": min(last.sqnr_db, _LARGEST_DB),
        "parity_first_over": "" if first is None else first.name,
    }


def _scheme(source: types.Artifact, exec_properties: dict[str, Any]) -> QuantizationScheme:
    """The scheme that was asked for, or else the one that the model was trained with."""
    trained = source.get_string_custom_property("scheme")
    if not exec_properties["scheme"] and not trained:
        raise ValueError(
            f"model artifact {source.uri} does not say by which scheme it was trained; pass scheme= to"
            " TFLiteIntConverter"
        )
    return QuantizationScheme.from_json(exec_properties["scheme"] or trained)


def _feature_spec(input_dict: dict[str, list[types.Artifact]]) -> dict[str, Any]:
    """How the examples are parsed: as the transform graph writes them, or as the schema says."""
    if input_dict.get("transform_graph"):
        uri = artifact_utils.get_single_uri(input_dict["transform_graph"])
        spec: dict[str, Any] = tft.TFTransformOutput(uri).transformed_feature_spec()
        return spec
    schema = io_utils.SchemaReader().read(
        io_utils.get_only_uri_in_dir(artifact_utils.get_single_uri(input_dict["schema"]))
    )
    spec = schema_utils.schema_as_feature_spec(schema).feature_spec
    return spec


def _batches(records: list[bytes], feature_spec: dict[str, Any]) -> list[dict[str, Any]]:
    """Dense features by name, in batches."""
    parsed = [
        tf.io.parse_example(records[start : start + _CALIBRATION_BATCH], feature_spec)
        for start in range(0, len(records), _CALIBRATION_BATCH)
    ]
    return [{name: value.numpy() for name, value in batch.items() if isinstance(value, tf.Tensor)} for batch in parsed]


def _facts(
    tflite: bytes, source: types.Artifact, scheme: QuantizationScheme, profile: str
) -> dict[str, model_artifact.Fact]:
    accuracies = {
        f"parent_{name}": value for name, value in model_artifact.read_facts(source).items() if name.startswith("eval_")
    }
    graph = flatbuffer.read_subgraphs(tflite)[0]
    edges = [graph.tensors[index] for index in (*graph.inputs, *graph.outputs)]
    quantized = sorted({tensor.dtype.lower() for tensor in edges if tensor.scale or tensor.dtype == "FLOAT32"})
    return {
        "kind": "int8" if scheme.all_activation_bits == (8,) else scheme.name,
        "scheme": scheme.to_json(),
        "profile": profile,
        "io_dtype": ", ".join(quantized),
        "integer_only": int(scheme.integer_only),
        "sha256": hashlib.sha256(tflite).hexdigest(),
        "parent_sha256": source.get_string_custom_property("sha256"),
        "float_model_uri": source.get_string_custom_property("float_model_uri"),
        "size_bytes": len(tflite),
        **accuracies,
        **toolchain.version_facts(),
    }


class TFLiteIntConverterSpec(component_spec.ComponentSpec):
    """Inputs, outputs and parameters of TFLiteIntConverter."""

    PARAMETERS = {
        "scheme": component_spec.ExecutionParameter(type=str),
        "profile": component_spec.ExecutionParameter(type=str),
        "io_dtype": component_spec.ExecutionParameter(type=str),
        "split": component_spec.ExecutionParameter(type=str),
        "representative_examples": component_spec.ExecutionParameter(type=int),
        "seed": component_spec.ExecutionParameter(type=int),
        "toolchain": component_spec.ExecutionParameter(type=str),
    }
    INPUTS = {
        "model": component_spec.ChannelParameter(type=standard_artifacts.Model),
        "examples": component_spec.ChannelParameter(type=standard_artifacts.Examples),
        "transform_graph": component_spec.ChannelParameter(type=standard_artifacts.TransformGraph, optional=True),
        "schema": component_spec.ChannelParameter(type=standard_artifacts.Schema, optional=True),
    }
    OUTPUTS = {"tflite_model": component_spec.ChannelParameter(type=standard_artifacts.Model)}


class TFLiteIntConverter(base_component.BaseComponent):
    """Converts a SavedModel to a TFLite model for batches of one, and proves that it computes no float tensor.

    A quantization-aware-trained model carries its ranges. A float one is calibrated with a sample of the examples
    (post-training quantization). Output `tflite_model`: a Model with the file `Format-Serving/tflite`, and for a model
    with fake quantization `parity.txt`: how far each tensor is from what training computed.
    """

    SPEC_CLASS = TFLiteIntConverterSpec
    EXECUTOR_SPEC = executor_spec.ExecutorClassSpec(Executor)

    def __init__(
        self,
        *,
        model: types.BaseChannel,
        examples: types.BaseChannel,
        transform_graph: types.BaseChannel | None = None,
        schema: types.BaseChannel | None = None,
        scheme: str | QuantizationScheme | None = "full_int8",
        profile: str = "edge_tpu",
        io_dtype: str = "",
        split: str = "train",
        representative_examples: int = 300,
        seed: int = 1,
    ) -> None:
        """Declares the component.

        Args:
          model: A SavedModel with signature `serving_dense`, as QuantizeTrainer exports it.
          examples: Examples with the model's inputs as features; transformed ones.
          transform_graph: The graph that made the examples; says how to parse them.
          schema: Says how to parse the examples where there is no transform graph.
          scheme: A quantization scheme or its name; None for the one that QuantizeTrainer trained the model with, which
            strategy "auto" chooses.
          profile: Name of the target whose needs the converter respects.
          io_dtype: Type of the inputs and outputs: "int8" or "uint8", "int16" with 16-bit activations; "" for the usual
            one of the scheme.
          split: The split that a float model is calibrated with.
          representative_examples: How many examples of it.
          seed: Decides which.

        Raises:
          ValueError: If an argument is wrong or scheme and profile do not fit.
        """
        if scheme is None:
            require_io_dtype(io_dtype or IO_DTYPES[0])
        else:
            scheme = load_scheme(scheme)
            load_profile(profile).check(scheme)
            io_dtype = io_dtype or default_io_dtype(scheme)
            require_io_dtype(io_dtype, scheme)
        if representative_examples < 1:
            raise ValueError(f"representative_examples: got {representative_examples}, expected at least 1")
        if transform_graph is None and schema is None:
            raise ValueError("neither transform_graph nor schema given; one must say how to parse the examples")
        super().__init__(
            TFLiteIntConverterSpec(
                model=model,
                examples=examples,
                transform_graph=transform_graph,
                schema=schema,
                scheme="" if scheme is None else scheme.to_json(),
                profile=profile,
                io_dtype=io_dtype,
                split=split,
                representative_examples=representative_examples,
                seed=seed,
                toolchain=toolchain.versions_json(),
                tflite_model=channel_utils.as_channel([standard_artifacts.Model()]),
            )
        )
