"""TFLiteIntConverter: a trained model -> a TFLite model proved to be integer-only."""

import contextlib
import dataclasses
import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from tfx import types
from tfx.dsl.components.base import base_component, base_executor, executor_spec
from tfx.types import artifact_utils, channel_utils, component_spec, standard_artifacts

from components import converter_inputs, example_files, model_artifact
from components.converted_model import ConvertedModel
from components.described_inputs import DescribedInputs
from components.quantization import toolchain
from components.quantization.attribution.report import Attribution
from components.quantization.attribution.saved_models import SavedModels, attribute_saved
from components.quantization.calibration_set import PROPERTY, CalibrationSet, sets_from_json
from components.quantization.contract.device_files import labels_by_output
from components.quantization.conversion import convert as conversion
from components.quantization.conversion import interface, io_dtypes
from components.quantization.conversion.calibration import AUTO, MIN_MAX, load_method
from components.quantization.conversion.profiles import load_profile
from components.quantization.qat.ladder import Rung
from components.quantization.schemes import QuantizationScheme, load_scheme
from components.retraining.spans import SPAN_FINGERPRINTS, SPANS

_CALIBRATED_ALONE: Rung = "ptq"  # of a model whose weights are those of its float parent


class Executor(base_executor.BaseExecutor):
    """Converts in this process; publishes only what passed the proof."""

    def Do(
        self,
        input_dict: dict[str, list[types.Artifact]],
        output_dict: dict[str, list[types.Artifact]],
        exec_properties: dict[str, Any],
    ) -> None:
        """Samples the representative dataset, converts and proves, then measures where accuracy went."""
        source = artifact_utils.get_single_instance(input_dict["model"])
        scheme = _scheme(source, exec_properties)
        inputs = converter_inputs.ConverterInputs(input_dict, exec_properties)
        batches = inputs.representative_batches()
        with model_artifact.local_saved_model(source) as saved_model:
            made = conversion.convert_with_report(
                saved_model,
                scheme,
                representative_dataset=batches,
                profile=exec_properties["profile"],
                io_dtype=io_dtypes.from_text(exec_properties["io_dtype"]),
                calibration=exec_properties["calibration"],
                score=inputs.score() if exec_properties["calibration"] == AUTO else None,
                cache_dir=Path(exec_properties["cache_dir"]) if exec_properties["cache_dir"] else None,
            )
            found = _attribution(saved_model, input_dict, exec_properties, made.tflite)
        names, outputs = interface.signature_of(made.tflite)
        labels = labels_by_output(json.loads(exec_properties["labels"]), tuple(outputs))
        described = DescribedInputs(inputs, tuple(names), bool(made.report.calibrated))
        sets = _calibration_sets(source, inputs if made.report.calibrated else None)
        report = dataclasses.replace(made.report, calibration_sets=sets)
        model = ConvertedModel(
            made=dataclasses.replace(made, report=report),
            scheme=scheme,
            profile=exec_properties["profile"],
            knowledge=inputs.knowledge(tuple(names), labels),
            features=batches[0],
            attribution=found,
            coverage=described.coverage,
            pipeline=exec_properties["pipeline"],
            settings=_settings(input_dict, exec_properties, bool(made.report.calibrated)),
            statistics=described.statistics,
        )
        run_id = (self._context and self._context.pipeline_run_id) or ""
        model.publish(source, artifact_utils.get_single_instance(output_dict["tflite_model"]), run_id)


def _attribution(
    saved_model: Path, input_dict: dict[str, list[types.Artifact]], exec_properties: dict[str, Any], tflite: bytes
) -> Attribution | None:
    """Where accuracy went, on examples of the golden split; None if nobody asks or there is nothing to compare with."""
    if not exec_properties["attribution_examples"]:
        return None
    batches = converter_inputs.ConverterInputs(input_dict, exec_properties).attribution_batches()
    with contextlib.ExitStack() as stack:
        parent = None
        if input_dict.get("float_model"):
            float_model = artifact_utils.get_single_instance(input_dict["float_model"])
            parent = stack.enter_context(model_artifact.local_saved_model(float_model))
        kind = artifact_utils.get_single_instance(input_dict["model"]).get_string_custom_property("kind")
        models = SavedModels(converted=saved_model, float_parent=parent, fine_tuned=kind != _CALIBRATED_ALONE)
        return attribute_saved(models, tflite, batches, exec_properties["label_key"])


def _calibration_sets(
    source: types.Artifact, sampled: converter_inputs.ConverterInputs | None
) -> tuple[CalibrationSet, ...]:
    """Those of the training and that of this conversion, which is None if it calibrated nothing."""
    of_training = sets_from_json(source.get_string_custom_property(PROPERTY))
    return of_training if sampled is None else (*of_training, sampled.calibration_set())


def _scheme(source: types.Artifact, exec_properties: dict[str, Any]) -> QuantizationScheme:
    """The scheme that was asked for, or else the one that the model was trained with."""
    trained = source.get_string_custom_property("scheme")
    if not exec_properties["scheme"] and not trained:
        raise ValueError(
            f"model artifact {source.uri} does not say by which scheme it was trained; pass scheme= to"
            " TFLiteIntConverter"
        )
    return QuantizationScheme.from_json(exec_properties["scheme"] or trained)


def _settings(
    input_dict: dict[str, list[types.Artifact]], exec_properties: dict[str, Any], is_calibrated: bool
) -> dict[str, model_artifact.Fact]:
    """What lineage shows besides the scheme: settings of a calibration if there was one, and the spans of examples."""
    settings: dict[str, model_artifact.Fact] = {}
    if is_calibrated:
        settings["calibration"] = exec_properties["calibration"]
        settings["representative_examples"] = exec_properties["representative_examples"]
        settings["representative_seed"] = exec_properties["seed"]
    for examples in input_dict.get("raw_examples") or []:
        settings["examples_span"] = example_files.span_of(examples)
        settings["examples_fingerprint"] = examples.get_string_custom_property("input_fingerprint")
        for name in (SPANS, SPAN_FINGERPRINTS):  # of a window; `span` is its newest
            if examples.has_custom_property(name):
                settings[f"examples_{name}"] = examples.get_string_custom_property(name)
    return settings


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
        "attribution_examples": component_spec.ExecutionParameter(type=int),
        "cache_dir": component_spec.ExecutionParameter(type=str),
        "pipeline": component_spec.ExecutionParameter(type=str),
        "toolchain": component_spec.ExecutionParameter(type=str),
    }
    INPUTS = {
        "model": component_spec.ChannelParameter(type=standard_artifacts.Model),
        "float_model": component_spec.ChannelParameter(type=standard_artifacts.Model, optional=True),
        "examples": component_spec.ChannelParameter(type=standard_artifacts.Examples),
        "transform_graph": component_spec.ChannelParameter(type=standard_artifacts.TransformGraph, optional=True),
        "schema": component_spec.ChannelParameter(type=standard_artifacts.Schema, optional=True),
        "statistics": component_spec.ChannelParameter(type=standard_artifacts.ExampleStatistics, optional=True),
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
      attribution.json, .svg, .txt         where accuracy went: by step, layer, output and kernel; see `float_model`
      representative.json                  the sample that ranges were calibrated with, against its split; where it was
      statistics/                          of its examples and inputs, see components/drift_statistics.py; where given
    """

    SPEC_CLASS = TFLiteIntConverterSpec
    EXECUTOR_SPEC = executor_spec.ExecutorClassSpec(Executor)

    def __init__(
        self,
        *,
        model: types.BaseChannel,
        float_model: types.BaseChannel | None = None,
        examples: types.BaseChannel,
        transform_graph: types.BaseChannel | None = None,
        schema: types.BaseChannel | None = None,
        raw_examples: types.BaseChannel | None = None,
        statistics: types.BaseChannel | None = None,
        scheme: str | QuantizationScheme | None = "full_int8",
        profile: str = "edge_tpu",
        io_dtype: io_dtypes.IoDtype = "",
        split: str = "train",
        representative_examples: int = 300,
        seed: int = 1,
        golden_split: str = "eval",
        labels: Sequence[str] | Mapping[str, Sequence[str]] = (),
        calibration: str = MIN_MAX,
        label_key: str = "",
        attribution_examples: int = 200,
        cache_dir: str = "",
        pipeline: str = "",
    ) -> None:
        """Declares the component.

        Args:
          model: A SavedModel with signature `serving_dense`, as QuantizeTrainer exports it.
          float_model: The float model that a quantization-aware one was made from, QuantizeTrainer's `float_model`.
            Without it nothing is measured of where accuracy went, unless `model` is a float Keras model itself.
          examples: Examples with the model's inputs as features; transformed ones.
          transform_graph: The graph that made the examples; says how to parse them.
          schema: Says how to parse the examples where there is no transform graph.
          raw_examples: Examples before Transform. With them the device's contract goes from raw features to integers,
            and is verified with some of them; without, it begins at the model's inputs.
          statistics: StatisticsGen's of the raw examples. With them the model keeps statistics of its training examples
            and of its inputs, with which SpanDrift compares those of later runs.
          scheme: A quantization scheme or its name; None for the one that QuantizeTrainer trained the model with, which
            strategy "auto" chooses.
          profile: Name of the target whose needs the converter respects.
          io_dtype: Type of the inputs and outputs, of all or by name: "int8" or "uint8", "int16" with 16-bit
            activations, "float32" for one QUANTIZE or DEQUANTIZE at that edge, outside of the proof; "" for the usual
            one of the scheme.
          split: The split that a float model is calibrated with.
          representative_examples: How many examples of it.
          seed: Decides which.
          golden_split: The split that golden vectors are made of, that calibration "auto" measures accuracy on, and on
            which is measured where accuracy went.
          labels: The names of the classes, in the order of the output; by name of the output if there are several.
          calibration: How ranges are found from examples: "min_max", "percentile_99.9" and so on, "mse", or "auto" for
            the one with the best accuracy.
          label_key: The transformed feature that is the label, for "auto" and for the metrics of the float model, as
            they were compiled, of floats, fake quantization and integers. Where these cannot be restored or do not fit
            the label, the log says so and the rest is measured.
          attribution_examples: How many examples show where accuracy went; 0 for none. The models before and three sets
            of kernels run them, the slow reference kernels 32 at most.
          cache_dir: Local directory in which conversions are kept by the hash of all that decides them, so that a retry
            does not convert again; "" for none.
          pipeline: Name of the pipeline, which stays with the model: QuantizedEvaluator holds it only against a last
            blessed model of the same one; "" for none.

        Raises:
          ValueError: If an argument is wrong or scheme and profile do not fit.
        """
        if scheme is not None:
            scheme = load_scheme(scheme)
            load_profile(profile).check(scheme)
        io_dtypes.require(io_dtype, scheme)
        wrong = []
        if representative_examples < 1:
            wrong.append(f"representative_examples: got {representative_examples}, expected at least 1")
        if attribution_examples < 0:
            wrong.append(f"attribution_examples: got {attribution_examples}, expected at least 0")
        if "://" in cache_dir:
            wrong.append(f"cache_dir: got {cache_dir!r}, expected a local directory")
        if wrong:
            raise ValueError("; ".join(wrong))
        if calibration != AUTO:
            load_method(calibration)
        elif not label_key:
            raise ValueError("calibration: got 'auto' without a label_key, expected one to measure accuracy with")
        if transform_graph is None and schema is None:
            raise ValueError("neither transform_graph nor schema given; one must say how to parse the examples")
        super().__init__(
            TFLiteIntConverterSpec(
                model=model,
                float_model=float_model,
                examples=examples,
                transform_graph=transform_graph,
                schema=schema,
                raw_examples=raw_examples,
                statistics=statistics,
                scheme="" if scheme is None else scheme.to_json(),
                profile=profile,
                io_dtype=io_dtypes.as_text(io_dtype),
                split=split,
                representative_examples=representative_examples,
                seed=seed,
                golden_split=golden_split,
                labels=json.dumps(dict(labels) if isinstance(labels, Mapping) else list(labels)),
                calibration=calibration,
                label_key=label_key,
                attribution_examples=attribution_examples,
                cache_dir=cache_dir,
                pipeline=pipeline,
                toolchain=toolchain.versions_json(),
                tflite_model=channel_utils.as_channel([standard_artifacts.Model()]),
            )
        )
