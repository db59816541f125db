"""`attribute`: where accuracy went on the way from a float model to its integers."""

import contextlib
import dataclasses
import logging
from collections.abc import Iterable, Iterator, Mapping
from typing import Any

import numpy as np
import tensorflow as tf
import tf_keras

from components.quantization.attribution.kernel_agreement import Codes, compared, run_kernels
from components.quantization.attribution.layers import Features, LayerSums
from components.quantization.attribution.metrics import (
    Change,
    CompiledMetrics,
    Labelled,
    Measured,
    Metric,
    Outputs,
    changes,
    own_metric,
)
from components.quantization.attribution.outputs import output_use
from components.quantization.attribution.predictions import (
    agreements,
    dequantized,
    interpreter_of,
    labelled,
    predictions,
    require_same_names,
)
from components.quantization.attribution.report import Attribution, Step
from components.quantization.kernels import KERNELS, Kernels
from components.quantization.qat.fake_quantization import FakeQuantize
from components.quantization.qat.quantize import in_floats
from components.quantization.qat.sensitivity import Sensitivity, sensitivities

_LOGGER = logging.getLogger(__name__)

FLOAT, FAKE_QUANT, INTEGER = "float", "fake-quant", "integer"
# What a file whose ranges of 16 bits were calibrated is comparable with: those of training are not in it.
FAKE_QUANT_WEIGHTS = "fake-quant weights"
_KERAS = "Keras, float32"
_QUANTIZATION = "quantization as such"
_FINE_TUNING = "quantization as such, and fine-tuning"
_CONVERSION = "conversion and kernels"
_CONVERSION_OF_16_BITS = "activations of 16 bits, conversion and kernels"
_OF_KERNELS = "kernels alone"
_SENSITIVITY_EXAMPLES = 64
_LAYER_BATCH = 8  # whose tensors, all of them, are in memory at a time


@dataclasses.dataclass(frozen=True, kw_only=True, slots=True)
class AttributionOptions:
    """What is measured.

    Attributes:
      metric: Of the user's, in place of those with which the float model was compiled: a function of all labels and all
        predictions, a dict by name of several outputs, that returns a number for each example or one for all.
      kernels: The sets of kernels that run the integers; the headline is the first's.
      layer_examples: How many examples are compared layer by layer.
      reference_examples: How many examples the reference kernels run, which are slow; None for all. Of fewer than all
        there is no metric, but the agreement with the other kernels.
      bound_lsb: From how many steps of 8-bit integers on a layer counts as diverging.
      sensitivity: Whether each layer is quantized alone as well, which takes one run of the model for each.
      fine_tuned: Whether the model with fake quantization was trained on; if its ranges were only calibrated, training
        is not among the causes of a change.
    """

    metric: Metric | None = None
    kernels: tuple[Kernels, ...] = KERNELS
    layer_examples: int = 100
    reference_examples: int | None = None
    bound_lsb: float = 2.0
    sensitivity: bool = False
    fine_tuned: bool = True

    def __post_init__(self) -> None:
        """Refuses nonsense."""
        unknown = sorted(set(self.kernels) - set(KERNELS))
        wrong = [f"kernels: got {', '.join(unknown)}, expected some of {', '.join(KERNELS)}"] if unknown else []
        if not self.kernels or len(set(self.kernels)) < len(self.kernels):
            wrong.append(f"kernels: got {self.kernels}, expected at least one, each once")
        if self.layer_examples < 1:
            wrong.append(f"layer_examples: got {self.layer_examples}, expected at least 1")
        if self.reference_examples is not None and self.reference_examples < 1:
            wrong.append(f"reference_examples: got {self.reference_examples}, expected at least 1")
        if not self.bound_lsb > 0:
            wrong.append(f"bound_lsb: got {self.bound_lsb}, expected a positive number")
        if wrong:
            raise ValueError("attribution: " + "; ".join(wrong))


def attribute(
    float_model: tf_keras.Model,
    qat_model: tf_keras.Model | None,
    tflite: bytes,
    examples: Iterable[Any],
    options: AttributionOptions | None = None,
) -> Attribution:
    """Measures a model in floats, with fake quantization and in integers, on the same examples.

    Args:
      float_model: The functional float model; compiled with the task's metrics, if examples have labels.
      qat_model: The functional model of quantization-aware training, or None: then the integers are compared with the
        float model. Of one of 16-bit activations the weights alone are quantized: the ranges of its activations are
        not in the file, whose own ones were calibrated.
      tflite: What was converted from it.
      examples: Batches, each (features, labels), (features, labels, weights), or features alone; features are an array
        of shape (batch, ...) or a dict from input name to such an array, in the model's own units. They are held in
        memory: a few hundred to a few thousand examples tell enough.
      options: What is measured.

    Raises:
      ValueError: If the models are not of one family, an example does not fit, there is none, or there are labels and
        no metrics.
    """
    options = options or AttributionOptions()
    return _Attribution(float_model, qat_model, tflite, options).run(labelled(float_model, examples))


class _Attribution:
    """One measurement."""

    def __init__(
        self,
        float_model: tf_keras.Model,
        qat_model: tf_keras.Model | None,
        tflite: bytes,
        options: AttributionOptions,
    ) -> None:
        self._float, self._qat, self._options = float_model, qat_model, options
        self._interpreters = {kernels: interpreter_of(tflite, kernels, float_model) for kernels in options.kernels}
        # A delegate keeps no intermediate tensors.
        kept: Kernels = "reference" if options.kernels[0] == "reference" else "optimized"
        self._layer_interpreter = interpreter_of(tflite, kept, float_model, keep_tensors=True)
        self._compared = float_model if qat_model is None else qat_model
        self._middle = ""
        if qat_model is not None:
            require_same_names(float_model, qat_model)
            self._middle = FAKE_QUANT_WEIGHTS if _has_16_bits(qat_model) else FAKE_QUANT

    def run(self, batches: list[Labelled]) -> Attribution:
        """Measures."""
        is_partial = self._middle == FAKE_QUANT_WEIGHTS
        with in_floats(self._compared, activations_alone=True) if is_partial else contextlib.nullcontext():
            return self._found(batches)

    def _found(self, batches: list[Labelled]) -> Attribution:
        count = batches[-1].rows.stop
        _LOGGER.info("attribution: %d examples in floats and with %s kernels", count, ", ".join(self._interpreters))
        floats = predictions(self._float, batches)
        predicted: dict[str, Outputs] = {FLOAT: floats}
        if self._qat is not None:
            predicted[self._middle] = predictions(self._qat, batches)
        runs = self._runs(batches)
        for kernels, codes in runs.items():
            outputs = self._interpreters[kernels].outputs
            # In float32, as TFLite's own DEQUANTIZE kernel.
            values = {name: dequantized(codes[name], outputs[name]) for name in codes}
            if len(next(iter(values.values()))) == count:
                predicted[f"{INTEGER} {kernels}"] = values
        headline = self._options.kernels[0]
        outputs, codes = self._interpreters[headline].outputs, runs[headline]
        used = tuple(output_use(name, outputs[name], codes[name], floats[name]) for name in self._float.output_names)
        sums = self._layer_sums(batches)
        measured = self._measured(batches, predicted)
        found = Attribution(
            steps=tuple(self._steps(measured, predicted)),
            changes=self._changes(measured),
            layers=sums.results(),
            unmatched=sums.unmatched,
            layer_kernels=self._layer_interpreter.description,
            compared_with=self._middle or FLOAT,
            bound_lsb=self._options.bound_lsb,
            outputs=used,
            output_kernels=self._interpreters[headline].description,
            kernels=compared(self._interpreters, runs),
            sensitivity=self._sensitivity(batches[0]),
            examples=count,
            layer_examples=min(count, self._options.layer_examples),
        )
        first = found.first_diverging
        where = f"{first.name}, by {first.max_lsb:.1f} steps" if first else "none"
        _LOGGER.info("attribution: first layer over %g steps: %s", self._options.bound_lsb, where)
        return found

    def _runs(self, batches: list[Labelled]) -> dict[Kernels, Codes]:
        """The integers of the outputs by kernels, for all examples, or as many as the reference kernels shall run."""
        features, most = [batch.features for batch in batches], self._options.reference_examples
        if most is None or self._options.kernels[0] == "reference":
            return run_kernels(self._interpreters, features)
        fast = dict(self._interpreters)
        reference = fast.pop("reference", None)
        runs = run_kernels(fast, features)
        return runs | run_kernels({"reference": reference}, _first(features, most)) if reference else runs

    def _layer_sums(self, batches: list[Labelled]) -> LayerSums:
        sums = LayerSums(self._compared, self._layer_interpreter, quantized=self._qat is not None)
        for features in _first([batch.features for batch in batches], self._options.layer_examples):
            for start in range(0, len(next(iter(features.values()))), _LAYER_BATCH):
                sums.add({name: array[start : start + _LAYER_BATCH] for name, array in features.items()})
        return sums

    def _measured(self, batches: list[Labelled], predicted: Mapping[str, Outputs]) -> dict[str, Measured]:
        """Metrics by step; none without labels."""
        if batches[0].labels is None:
            return {}
        metric = self._options.metric
        if metric is not None:
            labels = tf.nest.map_structure(lambda *parts: np.concatenate(parts), *[batch.labels for batch in batches])
            name = getattr(metric, "__name__", "metric")
            return {
                step: own_metric(name, metric, labels, outputs if len(outputs) > 1 else next(iter(outputs.values())))
                for step, outputs in predicted.items()
            }
        if not self._float.optimizer and not self._float.compiled_metrics:
            raise ValueError(
                "attribution: examples have labels, but the float model is not compiled; compile it with the task's"
                " loss and metrics, give a metric, or leave the labels out"
            )
        compiled = CompiledMetrics(self._float)
        return {step: compiled.measure(batches, outputs) for step, outputs in predicted.items()}

    def _steps(self, measured: Mapping[str, Measured], predicted: Mapping[str, Outputs]) -> Iterator[Step]:
        for name, outputs in predicted.items():
            yield Step(
                name=name,
                kernels=self._kernels_of(name),
                metrics=measured[name].values if name in measured else {},
                agreement=agreements(predicted[FLOAT], outputs),
            )

    def _kernels_of(self, step: str) -> str:
        _, _, kernels = step.partition(" ")
        return next((i.description for name, i in self._interpreters.items() if name == kernels), _KERAS)

    def _changes(self, measured: Mapping[str, Measured]) -> tuple[Change, ...]:
        if not measured:
            return ()
        first, *others = (step for step in measured if step not in (FLOAT, self._middle))
        if self._qat is None:
            causes = [(FLOAT, first, "quantization, conversion and kernels")]
        else:
            conversion = _CONVERSION if self._middle == FAKE_QUANT else _CONVERSION_OF_16_BITS
            quantization = _FINE_TUNING if self._options.fine_tuned else _QUANTIZATION
            causes = [(FLOAT, self._middle, quantization), (self._middle, first, conversion)]
        causes += [(first, other, _OF_KERNELS) for other in others]
        found = [changes((start, measured[start]), (end, measured[end]), cause) for start, end, cause in causes]
        return tuple(change for group in found for change in group)

    def _sensitivity(self, batch: Labelled) -> tuple[Sensitivity, ...]:
        if not self._options.sensitivity or self._qat is None:
            return ()
        _LOGGER.info("attribution: each layer of %s quantized alone", self._qat.name)
        few = {name: array[:_SENSITIVITY_EXAMPLES] for name, array in batch.features.items()}
        return sensitivities(self._qat, few)


def _has_16_bits(model: tf_keras.Model) -> bool:
    return any(isinstance(layer, FakeQuantize) and layer.bits == 16 for layer in model.layers)


def _first(batches: Iterable[Features], count: int) -> Iterator[Features]:
    """Yields batches of the first examples, so many of them."""
    for batch in batches:
        taken = {name: array[:count] for name, array in batch.items()}
        if count > 0:
            yield taken
        count -= len(next(iter(taken.values())))
