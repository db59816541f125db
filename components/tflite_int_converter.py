"""TFLiteIntConverter: a trained model -> a TFLite model proved to be integer-only."""

import hashlib
import json
import logging
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from tfx import types
from tfx.dsl.components.base import base_component, base_executor, executor_spec
from tfx.types import artifact_utils, channel_utils, component_spec, standard_artifacts

from components import converter_inputs, model_artifact
from components.quantization import toolchain
from components.quantization.contract.device_files import deploy, labels_by_output
from components.quantization.contract.file_metadata import ModelIdentity, content_sha256
from components.quantization.conversion import IO_DTYPES, default_io_dtype, flatbuffer, interface, require_io_dtype
from components.quantization.conversion import convert as conversion
from components.quantization.conversion.audit import audit
from components.quantization.conversion.calibration import AUTO, MIN_MAX, load_method
from components.quantization.conversion.profiles import load_profile
from components.quantization.qat import export
from components.quantization.qat.parity import Parity, parity
from components.quantization.schemes import QuantizationScheme, load_scheme

_LOGGER = logging.getLogger(__name__)

PARITY_FILE = "parity.txt"
REPORT_FILE = "conversion.json"
AUDIT_FILE = "audit.json"
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
        inputs = converter_inputs.ConverterInputs(input_dict, exec_properties)
        batches = inputs.representative_batches()
        with model_artifact.local_saved_model(source) as saved_model:
            made = conversion.convert_with_report(
                saved_model,
                scheme,
                representative_dataset=batches,
                profile=exec_properties["profile"],
                io_dtype=io_dtype,
                calibration=exec_properties["calibration"],
                score=inputs.score() if exec_properties["calibration"] == AUTO else None,
            )
            found = _parity(saved_model, scheme, made.tflite, batches[0])
        names, outputs = interface.signature_of(made.tflite)
        labels = labels_by_output(json.loads(exec_properties["labels"]), tuple(outputs))
        identity, known = self._identity(source, scheme, labels), inputs.knowledge(tuple(names), labels)
        with model_artifact.staged_output(output) as directory:
            tflite = deploy(model_artifact.serving_directory(directory), made.tflite, identity, known, batches[0])
            (directory / REPORT_FILE).write_text(made.report.to_json())
            (directory / AUDIT_FILE).write_text(audit(tflite, exec_properties["profile"], scheme).to_json())
            if found is not None:
                (directory / PARITY_FILE).write_text(f"{found}\n")
            facts = _facts(tflite, source, scheme, exec_properties["profile"])
            model_artifact.record_facts(output, directory, facts | _parity_facts(found))

    def _identity(
        self, source: types.Artifact, scheme: QuantizationScheme, labels: dict[str, tuple[str, ...]]
    ) -> ModelIdentity:
        context = self._context
        return ModelIdentity(
            run_id=(context and context.pipeline_run_id) or "",
            parent_sha256=source.get_string_custom_property("sha256"),
            scheme=scheme.to_json(),
            labels=labels,
            versions=toolchain.versions(),
        )


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
        "content_sha256": content_sha256(tflite),  # the same in each run, which the metadata name
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
        "golden_split": component_spec.ExecutionParameter(type=str),
        "labels": component_spec.ExecutionParameter(type=str),
        "calibration": component_spec.ExecutionParameter(type=str),
        "label_key": component_spec.ExecutionParameter(type=str),
        "toolchain": component_spec.ExecutionParameter(type=str),
    }
    INPUTS = {
        "model": component_spec.ChannelParameter(type=standard_artifacts.Model),
        "examples": component_spec.ChannelParameter(type=standard_artifacts.Examples),
        "transform_graph": component_spec.ChannelParameter(type=standard_artifacts.TransformGraph, optional=True),
        "schema": component_spec.ChannelParameter(type=standard_artifacts.Schema, optional=True),
        "raw_examples": component_spec.ChannelParameter(type=standard_artifacts.Examples, optional=True),
    }
    OUTPUTS = {"tflite_model": component_spec.ChannelParameter(type=standard_artifacts.Model)}


class TFLiteIntConverter(base_component.BaseComponent):
    """Converts a SavedModel to a TFLite model for batches of one, and proves that it computes no float tensor.

    A quantization-aware-trained model carries its ranges. A float one is calibrated with a sample of the examples
    (post-training quantization). Output `tflite_model`: a Model with

      Format-Serving/tflite                the model, with run, parent, scheme and labels in its metadata
      Format-Serving/io_contract.json      all that a device needs to know of its inputs and outputs; also as .h and .py
      Format-Serving/golden_vectors.npz    real inputs with the integers that come out; selftest.py checks them
      conversion.json, audit.json          how the conversion went, and what the proof looked at and found
      parity.txt                           how far each tensor is from what training computed, if training quantized
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
        raw_examples: types.BaseChannel | None = None,
        scheme: str | QuantizationScheme | None = "full_int8",
        profile: str = "edge_tpu",
        io_dtype: str = "",
        split: str = "train",
        representative_examples: int = 300,
        seed: int = 1,
        golden_split: str = "eval",
        labels: Sequence[str] | Mapping[str, Sequence[str]] = (),
        calibration: str = MIN_MAX,
        label_key: str = "",
    ) -> None:
        """Declares the component.

        Args:
          model: A SavedModel with signature `serving_dense`, as QuantizeTrainer exports it.
          examples: Examples with the model's inputs as features; transformed ones.
          transform_graph: The graph that made the examples; says how to parse them.
          schema: Says how to parse the examples where there is no transform graph.
          raw_examples: Examples before Transform. With them the device's contract goes from raw features to integers,
            and is verified with some of them; without, it begins at the model's inputs.
          scheme: A quantization scheme or its name; None for the one that QuantizeTrainer trained the model with, which
            strategy "auto" chooses.
          profile: Name of the target whose needs the converter respects.
          io_dtype: Type of the inputs and outputs: "int8" or "uint8", "int16" with 16-bit activations; "" for the usual
            one of the scheme.
          split: The split that a float model is calibrated with.
          representative_examples: How many examples of it.
          seed: Decides which.
          golden_split: The split that golden vectors are made of, and that calibration "auto" measures accuracy on.
          labels: The names of the classes, in the order of the output; by name of the output if there are several.
          calibration: How ranges are found from examples: "min_max", "percentile_99.9" and so on, "mse", or "auto" for
            the one with the best accuracy.
          label_key: The transformed feature that is the label; for "auto" alone.

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
        if calibration != AUTO:
            load_method(calibration)
        elif not label_key:
            raise ValueError("calibration: got 'auto' without a label_key, expected one to measure accuracy with")
        if transform_graph is None and schema is None:
            raise ValueError("neither transform_graph nor schema given; one must say how to parse the examples")
        super().__init__(
            TFLiteIntConverterSpec(
                model=model,
                examples=examples,
                transform_graph=transform_graph,
                schema=schema,
                raw_examples=raw_examples,
                scheme="" if scheme is None else scheme.to_json(),
                profile=profile,
                io_dtype=io_dtype,
                split=split,
                representative_examples=representative_examples,
                seed=seed,
                golden_split=golden_split,
                labels=json.dumps(dict(labels) if isinstance(labels, Mapping) else list(labels)),
                calibration=calibration,
                label_key=label_key,
                toolchain=toolchain.versions_json(),
                tflite_model=channel_utils.as_channel([standard_artifacts.Model()]),
            )
        )
