"""Where accuracy went between the models of a pipeline, as they lie on disk, and what is kept of that."""

import dataclasses
import logging
import math
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy.typing as npt
import tf_keras

from components.quantization.attribution.attribute import FLOAT, INTEGER, AttributionOptions, attribute
from components.quantization.attribution.metrics import CompiledMetrics
from components.quantization.attribution.predictions import labelled
from components.quantization.attribution.report import Attribution
from components.quantization.qat import export
from components.quantization.qat.freezing import quantizers

_LOGGER = logging.getLogger(__name__)

JSON_FILE, PICTURE_FILE, TEXT_FILE = "attribution.json", "attribution.svg", "attribution.txt"
# The reference kernels need a second for an image of MobileNetV2, and layers are compared one by one.
_OPTIONS = AttributionOptions(layer_examples=32, reference_examples=32)
_TRIED = 2
_LARGEST_DB = 200.0  # in place of infinity, which JSON has no number for

Features = Mapping[str, npt.NDArray[Any]]


@dataclasses.dataclass(frozen=True, kw_only=True, slots=True)
class SavedModels:
    """What a .tflite was made from, as SavedModels.

    Attributes:
      converted: The model that was converted, quantization-aware or float.
      float_parent: The float model that a quantization-aware one was made from; None if nobody knows.
      fine_tuned: Whether the quantization-aware one was trained on from that one's weights.
    """

    converted: Path
    float_parent: Path | None = None
    fine_tuned: bool = True


def attribute_saved(
    models: SavedModels, tflite: bytes, batches: Sequence[Features], label_key: str = ""
) -> Attribution | None:
    """Measures as `attribute` does, by the loss and metrics that the float model was trained with.

    Args:
      models: What it was made from.
      tflite: The flatbuffer.
      batches: Features by name, in the model's own units; others than its inputs are ignored.
      label_key: The feature that is the label; "" for none. Without labels that fit the model, or where its loss and
        metrics cannot be restored, there are no metrics.

    Returns:
      What was found; None, with the reason in the log, if there is nothing to compare the file with.
    """
    options = dataclasses.replace(_OPTIONS, fine_tuned=models.fine_tuned)
    try:
        float_model, qat_model = _loaded(models)
        inputs = [{name: batch[name] for name in float_model.input_names} for batch in batches]
        problem = _label_problem(float_model, batches, label_key)
        if problem:
            _LOGGER.info("attribution: without the metrics of the task: %s", problem)
            return attribute(float_model, qat_model, tflite, inputs, options)
        examples = [(features, batch[label_key]) for features, batch in zip(inputs, batches, strict=True)]
        return attribute(float_model, qat_model, tflite, examples, options)
    except ValueError as error:
        _LOGGER.info("attribution: not measured: %s", error)
        return None


def _loaded(models: SavedModels) -> tuple[tf_keras.Model, tf_keras.Model | None]:
    """The float model and the quantization-aware one, if that is what was converted."""
    converted = export.load_compiled_model(models.converted)
    if not quantizers(converted):
        found: tuple[tf_keras.Model, tf_keras.Model | None] = (converted, None)
    elif models.float_parent is None:
        raise ValueError("the float model behind the quantization-aware one is not known; connect it as float_model")
    else:
        found = (export.load_compiled_model(models.float_parent), converted)
    if not found[0]._is_graph_network:
        raise ValueError(f"float model {found[0].name!r} is subclassed; its layers cannot be told apart")
    return found


def _label_problem(model: tf_keras.Model, batches: Sequence[Features], label_key: str) -> str:
    """Why the metrics of a model cannot be computed; empty if they can."""
    if not label_key:
        return "no label_key was given"
    if label_key not in batches[0]:
        return f"label_key {label_key!r} is none of the features {', '.join(sorted(batches[0]))}"
    if len(model.output_names) > 1:
        return f"one label for the outputs {', '.join(model.output_names)}"
    if not model.optimizer:
        return "the float model was saved without its loss and metrics, or they cannot be restored"
    few = {name: values[:_TRIED] for name, values in batches[0].items()}
    (batch,) = labelled(model, [({name: few[name] for name in model.input_names}, few[label_key])])
    problem = CompiledMetrics(model).problem(batch)
    return f"label {label_key!r} does not fit them: {problem}" if problem else ""


def write_files(found: Attribution, directory: Path) -> None:
    """Writes what was found as JSON, as a picture and as tables."""
    (directory / JSON_FILE).write_text(found.to_json())
    (directory / PICTURE_FILE).write_text(found.to_svg())
    (directory / TEXT_FILE).write_text(f"{found}\n")


def headline(found: Attribution) -> dict[str, str | int | float]:
    """Returns the facts that stand for the whole: no number that JSON has not.

    Returns:
      By name, "attribution_" and: "examples"; "kernels", those of the numbers of the integers; each metric with its
      step, such as "accuracy_float", "accuracy_fake_quant" and "accuracy_integer"; "output_lsb" and "output_sqnr_db" of
      the output that differs most, "first_diverging", "" for none, both against "compared_with"; "kernels_top1_differs"
      and "ties", the largest shares, 0..1, of predictions on which two sets of kernels differ, and have a tie.
    """
    first = found.first_diverging
    facts: dict[str, str | int | float] = {
        "examples": found.examples,
        "kernels": found.output_kernels,
        "compared_with": found.compared_with,
        "first_diverging": "" if first is None else first.name,
    }
    integers = next(step for step in found.steps if step.name.startswith(INTEGER))
    for step in (*(one for one in found.steps if one.name in (FLOAT, found.compared_with)), integers):
        name = INTEGER if step is integers else step.name.replace("-", "_").replace(" ", "_")
        facts |= {f"{metric}_{name}": value for metric, value in step.metrics.items()}
    outputs = [layer for layer in found.layers if layer.name.startswith("output ") and not math.isnan(layer.saturation)]
    if outputs:  # of integers, at least one
        facts["output_lsb"] = max(layer.max_lsb for layer in outputs)
        facts["output_sqnr_db"] = max(-_LARGEST_DB, min(_LARGEST_DB, *(layer.sqnr_db for layer in outputs)))
    pairs = [pair for pair in found.kernels.pairs if pair.predictions]
    if pairs:
        facts["kernels_top1_differs"] = max(pair.top1_differs for pair in pairs)
        facts["ties"] = max(pair.ties for pair in pairs)
    finite = {name: value for name, value in facts.items() if not isinstance(value, float) or math.isfinite(value)}
    return {f"attribution_{name}": value for name, value in finite.items()}
