"""Reads back what a Beam pass of QuantizedEvaluator wrote: TFMA's metrics and the paired statistics beside them."""

import dataclasses
import json
import logging
import math
import os
from collections.abc import Iterable, Mapping
from typing import Any

import tensorflow_model_analysis as tfma
from tensorflow_model_analysis.proto import config_pb2
from tfx.dsl.io import fileio

from components.batched_metrics import accuracies_of
from components.evaluation.accuracy_check import accuracy_question
from components.evaluation.input_ranges import CLIPPED_INPUTS
from components.evaluation.measurements import INTEGER, Cell, Measurements, Paired, Slice
from components.paired_evaluation import PAIRED_FILE

NO_EXAMPLES = "slices_without_examples"
"""The fact that says by which features nothing was sliced, as no example has them."""
_LOGGER = logging.getLogger(__name__)


def read_measurements(output_path: str, models: Iterable[str], facts: Mapping[str, float | str]) -> Measurements:
    """Reads what a pass wrote.

    Args:
      output_path: Its directory.
      models: Names of the models.
      facts: What is known of the integer model as a file; what is clipped of its inputs is added, and by which features
        nothing was sliced.
    """
    with fileio.open(os.path.join(output_path, PAIRED_FILE), "r") as file:
        document = json.loads(file.read())
    paired, examples = {}, {}
    for record in document["paired"]:
        cut = tuple((feature, value) for feature, value in record["slice"])
        names = [field.name for field in dataclasses.fields(Paired)]
        figures = {name: math.nan if record[name] is None else record[name] for name in names}
        paired[record["model"], record["output"], cut] = Paired(**figures)
        examples[cut] = record["examples"]
    results = {model: tfma.load_eval_result(output_path, model_name=model) for model in models}
    metrics = _metrics(results)
    return Measurements(
        metrics=metrics,
        examples=examples,
        paired=paired,
        weightless=frozenset(cut for (_, _, cut), of in paired.items() if not of.effective_examples),
        unclear={
            **_accuracy_questions(accuracies_of(results[INTEGER].config), metrics, document),
            **{record["output"]: record["question"] for record in document["labels"] if record["question"]},
        },
        degenerate={
            (record["model"], record["output"]): tuple(record["degenerate"])
            for record in document["outputs"]
            if record["degenerate"]
        },
        facts={**facts, **_clipped(document["inputs"]), **_without_examples(results[INTEGER].config, examples)},
    )


def _accuracy_questions(
    accuracies: Mapping[tuple[str, str], str], metrics: Mapping[Cell, Mapping[str, float]], document: Mapping[str, Any]
) -> dict[str, str]:
    """What is to be mended of accuracies over all examples, by output."""
    wanted = {record["output"]: record["accuracy_class"] for record in document["labels"]}
    shares: dict[str, dict[str, float]] = {output: {} for output in wanted}
    for record in document["paired"]:
        if not record["slice"]:
            for model, accuracy in ((INTEGER, record["accuracy"]), (record["model"], record["other_accuracy"])):
                shares[record["output"]][model] = math.nan if accuracy["value"] is None else accuracy["value"]
    found: dict[str, str] = {}
    for (output, name), class_name in accuracies.items():
        if output in wanted:
            values = {model: metrics[Cell(model=model, output=output)][name] for model in shares[output]}
            question = accuracy_question(name, class_name, wanted[output], values, shares[output])
            found |= {output: question} if question else {}
    return found


def _clipped(inputs: Iterable[Mapping[str, Any]]) -> dict[str, float]:
    """The share of the integer model's inputs that is clipped; of inputs that are not quantized, nothing is."""
    shares = [one["clipped"] / one["values"] for one in inputs if one["model"] == INTEGER]
    return {CLIPPED_INPUTS: max(shares, default=0.0)}


def _without_examples(config: config_pb2.EvalConfig, examples: Iterable[Slice]) -> dict[str, str]:
    """The groups of features that no example has all of, as of a name that is misspelt; nothing without such groups."""
    there = {frozenset(feature for feature, _ in cut) for cut in examples}
    groups = [
        ", ".join(spec.feature_keys) for spec in config.slicing_specs if frozenset(spec.feature_keys) not in there
    ]
    for group in groups if there else ():
        _LOGGER.warning("no example is in a slice by %s; check the names, of transformed or raw features", group)
    return {NO_EXAMPLES: "; ".join(groups)} if groups and there else {}


def _suffix(sub_key: str) -> str:
    """What `TaskMetric.figures` adds to a name, for TFMA's "classId:2", "k:2" or "topK:2"."""
    kind, _, value = sub_key.partition(":")
    return f"_{ {'classId': 'class', 'topK': 'top'}.get(kind, kind) }_{value}" if kind else ""


def _metrics(results: Mapping[str, Any]) -> dict[Cell, dict[str, float]]:
    """Metrics that are single numbers, of every model, output and slice."""
    metrics: dict[Cell, dict[str, float]] = {}
    for model, result in results.items():
        for key, outputs in result.slicing_metrics:
            cut = tuple((feature, str(value)) for feature, value in key)
            for output, by_class in outputs.items():
                metrics[Cell(model=model, output=output, slice=cut)] = {
                    name + _suffix(sub_key): float(value["doubleValue"])
                    for sub_key, values in by_class.items()
                    for name, value in values.items()
                    if "doubleValue" in value
                }
    return metrics
