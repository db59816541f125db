"""Paired statistics and degenerate outputs of a Beam pass, beside TFMA's metrics; evaluation_results.py reads them.

{output_path}/
  metrics-*, validations.tfrecord, eval_config.json   TFMA's
  paired.json   {"paired": [...], "outputs": [...], "labels": [...]}, each by model, output and slice;
                {"inputs": [...]} by integer model and input
  flips.json    {"flips": [...]}, by output: which classes the float and the integer model say where they differ, and
                the gravest examples, with pictures
"""

import base64
import dataclasses
import json
import math
from collections.abc import Iterable, Iterator, Mapping
from typing import Any

import numpy as np
import tensorflow as tf
import tensorflow_model_analysis as tfma
from tensorflow_model_analysis import constants

from components.batched_inputs import values_of
from components.evaluation.decisions import Kind
from components.evaluation.degenerate import Limits, OutputSums
from components.evaluation.flips import Flip, FlipSums, is_picture
from components.evaluation.label_clues import LabelClues
from components.evaluation.measurements import FLIPS_FILE, FLOAT, INTEGER, Slice
from components.evaluation.paired_statistics import Examples, PairedSums
from components.paired_predictions import FLIPS, INPUTS

PAIRED_FILE = "paired.json"
SUMS = "sums"
"""What the sums of batches, by `Key`, are called beside what TFMA's evaluation has."""

Key = tuple[str, str, str, Slice]
"""What sums are of: their kind, a model, an output, a slice."""


@dataclasses.dataclass(frozen=True, kw_only=True, slots=True)
class PairedPass:
    """What is compared.

    Attributes:
      models: Names of all models.
      outputs: Names of the outputs; ("",) for a model with one.
      kinds: What the labels of outputs were declared to be, by output.
      limits: Lowest and highest value of the outputs of integer models, by model and output, where they are known.
    """

    models: tuple[str, ...]
    outputs: tuple[str, ...]
    kinds: Mapping[str, Kind]
    limits: Mapping[tuple[str, str], Limits]

    def sums(self, extracts: Mapping[str, Any]) -> Iterator[tuple[Key, Any]]:
        """Yields sums of a slice's examples of a batch by kind, model, output and slice."""
        element = tfma.metrics.StandardMetricInputs(extracts)
        for key in extracts[constants.SLICE_KEY_TYPES_KEY]:
            cut = tuple((feature, str(value)) for feature, value in key)
            for output in self.outputs:
                of = {model: values_of(element, model, output) for model in self.models}
                labels, scores, weights = of[INTEGER]
                kind = self.kinds.get(output)
                if not cut:
                    yield ("labels", FLOAT, output, cut), LabelClues.of(labels, of[FLOAT][1], kind)
                for model in self.models:
                    if model != INTEGER:
                        examples = Examples(
                            labels=labels, scores=scores, other_scores=of[model][1], weights=weights, kind=kind
                        )
                        yield ("paired", model, output, cut), PairedSums.of(examples)
                    if not cut:
                        limits = self.limits.get((model, output))
                        sums = OutputSums.of(labels, of[model][1], of[FLOAT][1], limits, kind)
                        yield ("outputs", model, output, cut), sums


def sums_of_batch(extracts: Mapping[str, Any]) -> Iterator[tuple[Key, Any]]:
    """Yields the sums that come with a batch: of inputs, whose name stands where an output's stands, and of flips."""
    for (model, name), sums in extracts[INPUTS].items():
        yield ("inputs", model, name, ()), sums
    for output, sums in extracts[FLIPS].items():
        yield ("flips", FLOAT, output, ()), sums


def documents(found: Iterable[tuple[Key, Any]], confidence: float) -> dict[str, str]:
    """Returns the contents of `PAIRED_FILE` and `FLIPS_FILE` by name.

    Args:
      found: All sums, added up.
      confidence: Of the intervals, 0 to 1.
    """
    paired, inputs, outputs, labels, flips = [], [], [], [], []
    for (kind, model, output, cut), sums in sorted(found, key=lambda one: one[0]):
        where = {"model": model, "output": output, "slice": cut}
        if kind == "paired":
            figures = dataclasses.asdict(sums.paired(confidence))
            accuracy, other_accuracy = map(dataclasses.asdict, sums.accuracies(confidence))
            accuracies = {"accuracy": accuracy, "other_accuracy": other_accuracy}
            paired.append({**where, **figures, **accuracies, "by_class": _by_class(sums)})
        elif kind == "inputs":
            inputs.append({"model": model, "input": output, **dataclasses.asdict(sums)})
        elif kind == "labels":
            told = {"question": sums.question(), "accuracy_class": sums.accuracy_class}
            labels.append({"output": output, **told, **dataclasses.asdict(sums)})
        elif kind == "flips":
            flips.append(_flips_document(output, sums))
        else:
            outputs.append({**where, "degenerate": sums.degenerate(), **_range(sums)})
    return {
        PAIRED_FILE: _json({"paired": paired, "inputs": inputs, "outputs": outputs, "labels": labels}),
        FLIPS_FILE: _json({"flips": flips}),
    }


def _flips_document(output: str, sums: FlipSums) -> dict[str, Any]:
    """The flips of an output, in `FLIPS_FILE`."""
    names = ("examples", "only_float_right", "only_integer_right")
    return {
        "output": output,
        "pairs": [
            {"float": pair[0], "integer": pair[1], **dict(zip(names, counts, strict=True))}
            for pair, counts in sorted(sums.pairs.items(), key=lambda one: (-one[1][0], one[0]))
        ],
        "examples": [_example(flip) for flip in sums.worst],
    }


def _example(flip: Flip) -> dict[str, Any]:
    return {
        "label": flip.label,
        "float": {"class": flip.float_class, "score": flip.float_score},
        "integer": {"class": flip.integer_class, "score": flip.integer_score},
        "margin": flip.margin,
        "inputs": [
            {"name": name, "picture": _png(values)} if is_picture(values) else {"name": name, "values": values.tolist()}
            for name, values in flip.inputs.items()
        ],
    }


def _png(pixels: Any) -> str:
    return "data:image/png;base64," + base64.b64encode(tf.io.encode_png(pixels, compression=9).numpy()).decode()


def _json(document: Any) -> str:
    # NaN is no JSON.
    return json.dumps(_without_nan(document), indent=1, allow_nan=False) + "\n"


def _by_class(sums: PairedSums) -> list[dict[str, int]]:
    names = ("examples", "agreeing", "better", "worse")
    return [dict(zip(names, map(int, row), strict=True)) for row in sums.by_class]


def _range(sums: OutputSums) -> dict[str, Any]:
    return {
        "examples": sums.examples,
        "lowest": float(np.min(sums.lowest)),
        "highest": float(np.max(sums.highest)),
        "saturated": sums.saturated / sums.values if sums.values else None,
        "not_numbers": sums.not_numbers,
    }


def _without_nan(value: Any) -> Any:
    if isinstance(value, dict):
        return {name: _without_nan(one) for name, one in value.items()}
    if isinstance(value, list | tuple):
        return [_without_nan(one) for one in value]
    return None if isinstance(value, float) and not math.isfinite(value) else value
