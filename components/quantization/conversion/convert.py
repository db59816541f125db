"""Conversion of a Keras model or SavedModel to a TFLite model, proved to be integer-only where the scheme says so."""

import contextlib
import dataclasses
import logging
import math
import time
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import tensorflow as tf
import tf_keras

from components.quantization.autograph import leave_libraries_alone
from components.quantization.conversion import (
    audit,
    bias_scales,
    cache,
    converter,
    finite_values,
    flatbuffer,
    int4_packing,
    int16_layers,
    int16_ranges,
    interface,
    io_dtypes,
    trained_ranges,
)
from components.quantization.conversion.calibration import METHODS, MIN_MAX, MethodScore, choose, load_method
from components.quantization.conversion.dense_function import DENSE_SIGNATURE, DenseFunction, dense_function, loops
from components.quantization.conversion.frozen_graph import freeze
from components.quantization.conversion.profiles import ConversionProfile, load_profile
from components.quantization.conversion.report import Conversion, ConversionReport
from components.quantization.conversion.representative_dataset import Batch, feeds
from components.quantization.conversion.rewrites import AppliedRewrite, rewrite
from components.quantization.schemes import QuantizationScheme, load_scheme

__all__ = ["DENSE_SIGNATURE", "convert", "convert_with_report"]

_LOGGER = logging.getLogger(__name__)

# The converter widens a range that was never trained or calibrated, a point, to about 1e-6.
_SMALLEST_RANGE = 2.5e-6
_ALL = "*"
AUTO = "auto"


def convert(
    model: tf_keras.Model | str | Path,
    scheme: str | QuantizationScheme = "full_int8",
    representative_dataset: Iterable[Batch] | None = None,
    profile: str | ConversionProfile = "edge_tpu",
    io_dtype: str | Mapping[str, str] | None = None,
) -> bytes:
    """Converts a model to a TFLite flatbuffer for batches of one.

    If the scheme is one of integers, the result is proved to compute in integers alone. A quantization-aware-trained
    model carries its ranges, which are kept as they are; what has none is calibrated with `representative_dataset`: all
    of a float model (post-training quantization), layers that training left out, and all 16-bit activations.

    The same model, arguments and versions give the same bytes.

    Args:
      model: A tf_keras model, or the path of a SavedModel with signature "serving_dense" (else "serving_default").
      scheme: A scheme or its name.
      representative_dataset: Batches of float32 inputs in the model's own units, each an array of shape
        (batch, ...) or, for several inputs, a dict from input name to such an array. Not read if training gave all
        ranges.
      profile: The target, by name, whose needs set the converter's options and are audited.
      io_dtype: Type of inputs and outputs, of all or by name: "int8" or "uint8", "int16" with 16-bit activations,
        "float32" with float ones; None for the first that the scheme has. "float32" of an integer model puts a
        QUANTIZE or DEQUANTIZE at that edge, outside of what is proved. Where an override gives single ones 16 bits,
        these are "int16".

    Returns:
      The flatbuffer; signature "serving_default" names inputs and outputs as the model does, and so do their tensors.

    Raises:
      NotIntegerOnlyError: If a float tensor is computed though the scheme is one of integers, or the profile's rules
        are broken; lists every offender.
      ValueError: If an argument is wrong, an input has an unknown dimension, or ranges are missing.

    >>> import tf_keras
    >>> model = tf_keras.Sequential([tf_keras.layers.Dense(2, input_shape=(3,))])
    >>> convert(model, representative_dataset=[[[0.0, 0.5, 1.0]]])[4:8]
    b'TFL3'
    """
    return convert_with_report(model, scheme, representative_dataset, profile, io_dtype).tflite


def convert_with_report(
    model: tf_keras.Model | str | Path,
    scheme: str | QuantizationScheme = "full_int8",
    representative_dataset: Iterable[Batch] | None = None,
    profile: str | ConversionProfile = "edge_tpu",
    io_dtype: str | Mapping[str, str] | None = None,
    *,
    calibration: str = MIN_MAX,
    score: Callable[[bytes], float] | None = None,
    cache_dir: Path | None = None,
) -> Conversion:
    """Converts as `convert` does, and says how.

    Args:
      model: As in `convert`.
      scheme: As in `convert`.
      representative_dataset: As in `convert`.
      profile: As in `convert`.
      io_dtype: As in `convert`.
      calibration: How ranges are found from examples: one of `calibration.METHODS`, or "auto" for the one of them whose
        model has the best score. Ranges of 16 bits are always the extremes.
      score: What "auto" measures a model by; higher is better. It is not called for another method, or where training
        gave all ranges.
      cache_dir: Where conversions are kept by the sha256 of all that decides them, and found again; None for nowhere.

    Raises:
      NotIntegerOnlyError: As `convert`.
      ValueError: As `convert`.
    """
    scheme, profile = load_scheme(scheme), load_profile(profile)
    profile.check(scheme)
    io_dtypes.require(io_dtype, scheme)
    _require_calibration(calibration, score)
    leave_libraries_alone()
    started = time.perf_counter()
    function = dense_function(model)
    traced_s = time.perf_counter() - started
    dtypes = io_dtypes.by_name(io_dtype, scheme, (*function.inputs, *function.outputs))
    conversion = _Conversion(function, scheme, profile, dtypes)
    conversion.method, conversion.score = (MIN_MAX if scheme.activation_bits != 8 else calibration), score
    conversion.seconds["trace"] = traced_s
    # Whoever gives an iterator gets it read once.
    made = conversion.run(representative_dataset, cache_dir)
    shown = ", ".join(dict.fromkeys(dtypes.values()))
    _LOGGER.info("converted to %d bytes by scheme %s, %s inputs and outputs", len(made.tflite), scheme.name, shown)
    return made


def _require_calibration(calibration: str, score: object) -> None:
    if calibration != AUTO:
        load_method(calibration)
    elif score is None:
        raise ValueError(f"calibration: got {AUTO!r} without a score, expected a function that measures a model")


class _Conversion:
    """One conversion: what all its steps need to know."""

    def __init__(
        self, function: DenseFunction, scheme: QuantizationScheme, profile: ConversionProfile, dtypes: Mapping[str, str]
    ) -> None:
        self._function = function
        self._scheme = scheme
        self._profile = profile
        self._dtypes = dtypes
        self._trained = trained_ranges.has_fake_quantization(function.concrete)
        self._definition: Any = None
        self._digest = b""
        self._wide: tuple[int16_layers.WideTensor, ...] = ()
        self._calibrated: tuple[str, ...] = ()
        self._examples: tuple[dict[str, npt.NDArray[Any]], ...] = ()
        self._candidates: tuple[MethodScore, ...] = ()
        self.method = MIN_MAX
        self.score: Callable[[bytes], float] | None = None
        self.seconds: dict[str, float] = {}

    def run(self, dataset: Iterable[Batch] | None, cache_dir: Path | None) -> Conversion:
        self._check_scheme()
        self._check_numbers()
        with self._timed("freeze"):
            self._definition = freeze(self._function.concrete)
        self._wide = trained_ranges.wide_tensors(self._definition)
        if cache_dir is not None:
            self._digest = cache.digest_of(self._definition)
        self._check_ranges_are_there(dataset)
        if self._ranges_are_known:
            if (found := self._found(cache_dir)) is not None:
                return found
            tflite = self._run_converter()
            self._calibrated = self._without_range(tflite)
            if dataset is None or not self._calibrated:
                return self._finished(tflite, cache_dir)
            _LOGGER.info("calibrating what has no trained range: %s", ", ".join(self._calibrated))
        self._examples = tuple(feeds(dataset or (), self._function.inputs)())
        if (found := self._found(cache_dir)) is not None:
            return found
        self._check_calibration()
        if self.method == AUTO and self.score is not None:
            choice = choose(METHODS, lambda method: self._deployed(self._run_converter(method))[0], self.score)
            self.method, self._candidates = choice.method, choice.scores
        return self._finished(self._run_converter(self.method), cache_dir)

    @property
    def _ranges_are_known(self) -> bool:
        """Whether no example is needed, as far as is known before the conversion."""
        return not self._scheme.integer_only or (self._trained and self._scheme.activation_bits == 8)

    def _without_range(self, tflite: bytes) -> tuple[str, ...]:
        """What an integer model still computes in floats."""
        if not self._scheme.integer_only:
            return ()
        missing = []
        for graph in flatbuffer.read_subgraphs(tflite):
            takers: dict[int, set[str]] = {}
            for op in graph.ops:
                for index in op.inputs:
                    takers.setdefault(index, set()).add(op.code)
            # What a DEQUANTIZE gives has a range, and so has what only a QUANTIZE takes.
            made = [index for op in graph.ops if op.code != "DEQUANTIZE" for index in op.outputs]
            missing += [graph.tensors[i] for i in (*graph.inputs, *made) if takers.get(i) != {"QUANTIZE"}]
        return tuple(dict.fromkeys(tensor.name for tensor in missing if tensor.dtype == "FLOAT32"))

    @contextlib.contextmanager
    def _timed(self, step: str) -> Iterator[None]:
        started = time.perf_counter()
        yield
        self.seconds[step] = self.seconds.get(step, 0.0) + time.perf_counter() - started

    def _key(self) -> str:
        options = {"scheme": self._scheme.to_json(), "profile": dataclasses.asdict(self._profile), "io": self._dtypes}
        options["calibration"] = self.method if self._examples else ""
        return cache.key_of(self._digest, options, self._examples)

    def _found(self, cache_dir: Path | None) -> Conversion | None:
        found = None if cache_dir is None else cache.read(cache_dir, self._key())
        if found is None:
            return None
        tflite, known = found
        _LOGGER.info("found in the cache %s", cache_dir)
        self.method = known["method"]
        self._candidates = tuple(MethodScore(**one) for one in known["candidates"])
        rewrites = tuple(AppliedRewrite(**{**one, "ops": tuple(one["ops"])}) for one in known["rewrites"])
        return self._conversion(tflite, tuple(known["calibrated"]), rewrites, cached=True)

    def _finished(self, tflite: bytes, cache_dir: Path | None) -> Conversion:
        with self._timed("check"):
            tflite, rewrites = self._deployed(tflite)
        if not self._trained:
            self._calibrated = (_ALL,) if self._examples else ()
        if cache_dir is not None:
            known = {
                "calibrated": self._calibrated,
                "rewrites": [dataclasses.asdict(applied) for applied in rewrites],
                "method": self.method,
                "candidates": [dataclasses.asdict(candidate) for candidate in self._candidates],
            }
            cache.write(cache_dir, self._key(), tflite, known)
        return self._conversion(tflite, self._calibrated, rewrites)

    def _deployed(self, tflite: bytes) -> tuple[bytes, tuple[AppliedRewrite, ...]]:
        """What the target takes, proved; and what was rewritten for it."""
        tflite, requantized = bias_scales.rescaled(tflite)
        if requantized:
            _LOGGER.info("gave %d biases the scale that their op computes with", requantized)
        rewritten = rewrite(self._widened(self._packed(tflite)), self._profile)
        self._check(rewritten.tflite)
        changed = {name: dtype for name, dtype in self._dtypes.items() if dtype in ("uint8", io_dtypes.FLOAT)}
        tflite = interface.with_dtypes(rewritten.tflite, changed if self._scheme.integer_only else {})
        require_runnable(tflite)
        return tflite, rewritten.applied

    def _conversion(
        self, tflite: bytes, calibrated: tuple[str, ...], rewrites: tuple[AppliedRewrite, ...], cached: bool = False
    ) -> Conversion:
        report = ConversionReport(
            scheme=self._scheme.to_json(),
            profile=self._profile.name,
            io_dtypes=self._dtypes,
            calibrated=calibrated,
            examples=len(self._examples),
            calibration=self.method if calibrated else "",
            candidates=self._candidates,
            rewrites=rewrites,
            seconds={step: round(seconds, 3) for step, seconds in self.seconds.items()},
            cached=cached,
        )
        return Conversion(tflite=tflite, report=report)

    def _check_scheme(self) -> None:
        scheme = self._scheme
        if self._trained and not scheme.trained:
            raise ValueError(
                f"scheme {scheme.name!r} quantizes float models, got one with fake quantization; convert the float"
                " model"
            )
        mixed = len(scheme.all_weight_bits) > 1 or len(scheme.all_activation_bits) > 1
        if mixed and not self._trained:
            raise ValueError(
                f"scheme {scheme.name!r} overrides the width of some layers, which training decides, got a float"
                " model; convert a quantization-aware trained one"
            )

    def _check_numbers(self) -> None:
        """TensorFlow's converter ends the process when it meets an infinite range."""
        broken = trained_ranges.non_finite_layers(self._function.concrete)
        if broken:
            raise ValueError(
                f"weights or ranges are not finite in: {', '.join(broken)}; look for features that are not numbers,"
                " and train again"
            )

    def _check_ranges_are_there(self, dataset: Iterable[Batch] | None) -> None:
        scheme = self._scheme
        if self._trained:
            unobserved = trained_ranges.unobserved_layers(self._definition)
            if unobserved:
                raise ValueError(
                    f"no range was ever trained for: {', '.join(unobserved)}; fine-tune the quantized model for at"
                    " least one step before converting it"
                )
        if dataset is not None:
            return
        if scheme.activation_bits == 16:
            raise ValueError(
                f"scheme {scheme.name!r} has 16-bit activations, whose ranges are calibrated: pass a"
                " representative_dataset"
            )
        if scheme.integer_only and not self._trained:
            raise ValueError(
                "a float model has no ranges to quantize with: pass a representative_dataset, or a quantization-aware"
                " trained model"
            )

    def _check_calibration(self) -> None:
        looping = loops(self._function.concrete)
        if looping:  # TensorFlow's calibration crashes
            raise ValueError(
                f"the model loops in {', '.join(looping)}, where ranges cannot be calibrated; unroll recurrent layers"
                " (unroll=True)"
            )
        tensors = {name: tensor.name for name, tensor in self._function.input_tensors.items()}
        fed = ({tensors[name]: values for name, values in example.items()} for example in self._examples)
        broken = finite_values.non_finite_nodes(self._definition, fed)
        if broken:
            raise ValueError(
                f"representative_dataset: from its examples {', '.join(broken[:3])} compute what is infinite or no"
                " number, which has no range; keep such values out, by tf.maximum before a logarithm or a root, say"
            )

    def _run_converter(self, method: str = MIN_MAX) -> bytes:
        per_channel = self._scheme.per_axis_weights and self._profile.per_channel_weights
        options = converter.ConverterOptions(
            integer_only=self._scheme.integer_only,
            activation_bits=self._scheme.activation_bits,
            weight_bits=self._scheme.weight_bits,
            per_channel=per_channel,
            # The kernels of Dense layers are trained with one scale.
            per_channel_dense=self._profile.per_channel_dense and per_channel and not self._trained,
            calibration=method,
        )
        wide = self._scheme.activation_bits == 16
        prepare = trained_ranges.remove_fake_quantization if wide else int16_ranges.narrow
        examples = (lambda: iter(self._examples)) if self._examples else None
        with self._timed("convert"):
            return converter.run(self._function, self._definition, options, examples, prepare)

    def _packed(self, tflite: bytes) -> bytes:
        if 4 not in self._scheme.all_weight_bits:
            return tflite
        packed, count = int4_packing.pack(tflite, rounding=not self._trained)
        if not count:
            raise ValueError(
                f"scheme {self._scheme.name!r}: no weights of the model are on a 4-bit grid, or no op of it has a"
                " kernel for such weights; train it with this scheme"
            )
        _LOGGER.info("packed %d tensors of weights into 4 bits", count)
        return packed

    def _widened(self, tflite: bytes) -> bytes:
        if len(self._scheme.all_activation_bits) == 1:
            return tflite
        if not self._wide:
            raise ValueError(f"scheme {self._scheme.name!r}: no layer was trained with 16 bits; train with this scheme")
        return int16_layers.widen(tflite, self._wide)

    def _check(self, tflite: bytes) -> None:
        found = audit.audit(tflite, self._profile, self._scheme)
        if not self._scheme.integer_only:
            rules = tuple(offender for offender in found.offenders if offender.kind != "integer")
            found = dataclasses.replace(found, offenders=rules)
        if not found.integer_only and not self._examples:
            remedy = "pass a representative_dataset to calibrate what has no trained range, or replace these layers"
            raise audit.NotIntegerOnlyError(found, remedy)
        if found.offenders:
            raise audit.NotIntegerOnlyError(found)
        self._check_edges(tflite)

    def _check_edges(self, tflite: bytes) -> None:
        graph = flatbuffer.read_subgraphs(tflite)[0]
        edges: Sequence[flatbuffer.Tensor] = [graph.tensors[i] for i in (*graph.inputs, *graph.outputs)]
        bad = [f"{t.name} (scale {t.scale[0]:g})" for t in edges if t.scale and not _usable(t)]
        if bad and self._trained and self._scheme.activation_bits == 8:
            raise ValueError(
                f"no range was ever trained for: {', '.join(bad)}; fine-tune the quantized model for at least one step"
                " before converting it"
            )
        if bad:
            raise ValueError(
                f"the representative dataset has hardly any range in: {', '.join(bad)}; scale the features"
            )


def require_runnable(tflite: bytes) -> None:
    """Runs the model once: some of TFLite's kernels refuse types that the converter makes, a few only then.

    Raises:
      ValueError: If TFLite cannot run it.
    """
    try:
        interpreter = tf.lite.Interpreter(model_content=tflite, num_threads=1)
        interpreter.allocate_tensors()
        for detail in interpreter.get_input_details():
            interpreter.set_tensor(detail["index"], np.zeros(detail["shape"], detail["dtype"]))
        interpreter.invoke()
    except (RuntimeError, ValueError) as error:
        raise ValueError(
            f"the converted model cannot be run by TFLite: {' '.join(str(error).split())[:500]}; replace that layer or"
            " choose another scheme"
        ) from error


def _usable(tensor: flatbuffer.Tensor) -> bool:
    """Whether a quantized tensor has a range."""
    bits = np.iinfo(tensor.dtype.lower()).bits
    return math.isfinite(tensor.scale[0]) and tensor.scale[0] * 2**bits > _SMALLEST_RANGE
