"""Conversion of a Keras model or SavedModel to a TFLite model, proved to be integer-only where the scheme says so."""

import contextlib
import dataclasses
import functools
import logging
import time
from collections.abc import Callable, Iterable, Iterator, Mapping
from pathlib import Path
from typing import Any

import numpy.typing as npt
import tf_keras

from components.quantization.autograph import leave_libraries_alone
from components.quantization.conversion import (
    audit,
    bias_scales,
    cache,
    checks,
    converter,
    int4_packing,
    int16_layers,
    int16_ranges,
    interface,
    io_dtypes,
    trained_ranges,
)
from components.quantization.conversion.calibration import METHODS, MIN_MAX, MethodScore, choose, load_method
from components.quantization.conversion.dense_function import DENSE_SIGNATURE, DenseFunction, dense_function
from components.quantization.conversion.frozen_graph import freeze
from components.quantization.conversion.profiles import ConversionProfile, load_profile
from components.quantization.conversion.report import Conversion, ConversionReport
from components.quantization.conversion.representative_dataset import Batch, feeds
from components.quantization.conversion.rewrites import AppliedRewrite, rewrite
from components.quantization.schemes import QuantizationScheme, load_scheme

__all__ = ["DENSE_SIGNATURE", "convert", "convert_with_report"]

_LOGGER = logging.getLogger(__name__)

AUTO = "auto"
_ALL = "*"
_NO_METHOD = ""  # of calibration, where training gave all ranges


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
    model: tf_keras.Model | str | Path | DenseFunction,
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
      model: As in `convert`, or from `dense_function`.
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
    function = model if isinstance(model, DenseFunction) else dense_function(model)
    traced_s = time.perf_counter() - started
    dtypes = io_dtypes.by_name(io_dtype, scheme, (*function.inputs, *function.outputs))
    conversion = _Conversion(function, scheme, profile, dtypes, cache_dir)
    conversion.seconds["trace"] = traced_s
    # Whoever gives an iterator gets it read once.
    made = conversion.run(representative_dataset, calibration if scheme.activation_bits == 8 else MIN_MAX, score)
    shown = ", ".join(dict.fromkeys(dtypes.values()))
    _LOGGER.info("converted to %d bytes by scheme %s, %s inputs and outputs", len(made.tflite), scheme.name, shown)
    return made


def _require_calibration(calibration: str, score: object) -> None:
    if calibration != AUTO:
        load_method(calibration)
    elif score is None:
        raise ValueError(f"calibration: got {AUTO!r} without a score, expected a function that measures a model")


@dataclasses.dataclass(frozen=True, kw_only=True, slots=True)
class _Made:
    """A file that is ready: converted now, or found in the cache."""

    tflite: bytes
    rewrites: tuple[AppliedRewrite, ...]
    cached: bool = False


class _Conversion:
    """One conversion: what all its steps need to know."""

    def __init__(
        self,
        function: DenseFunction,
        scheme: QuantizationScheme,
        profile: ConversionProfile,
        dtypes: Mapping[str, str],
        cache_dir: Path | None,
    ) -> None:
        self._function = function
        self._scheme = scheme
        self._profile = profile
        self._dtypes = dtypes
        self._cache_dir = cache_dir
        self._trained = trained_ranges.has_fake_quantization(function.concrete)
        self._examples: tuple[dict[str, npt.NDArray[Any]], ...] = ()
        self.seconds: dict[str, float] = {}

    def run(
        self, dataset: Iterable[Batch] | None, calibration: str, score: Callable[[bytes], float] | None
    ) -> Conversion:
        checks.require_scheme(self._scheme, self._trained)
        checks.require_finite_weights(self._function.concrete)
        with self._timed("freeze"):
            self._definition = freeze(self._function.concrete)
        # Of the graph as it is now: conversion rewrites it.
        self._wide = trained_ranges.wide_tensors(self._definition)
        self._digest = b"" if self._cache_dir is None else cache.digest_of(self._definition)
        if self._trained:
            checks.require_trained_ranges(self._definition)
        if dataset is None:
            checks.require_examples(self._scheme, self._trained)
        missing: tuple[str, ...] = (_ALL,)
        if self._ranges_are_known:
            if (found := self._found(_NO_METHOD)) is not None:
                return self._reported(found)
            tflite = self._converted(_NO_METHOD)
            missing = trained_ranges.tensors_without_range(tflite) if self._scheme.integer_only else ()
            if dataset is None or not missing:
                return self._reported(self._deployed(_NO_METHOD, tflite))
            _LOGGER.info("calibrating what has no trained range: %s", ", ".join(missing))
        self._examples = tuple(feeds(dataset or (), self._function.inputs)())
        return self._calibrated(missing, calibration, score)

    @property
    def _ranges_are_known(self) -> bool:
        """Whether no example is needed, as far as is known before the conversion."""
        return not self._scheme.integer_only or (self._trained and self._scheme.activation_bits == 8)

    def _calibrated(
        self, tensors: tuple[str, ...], calibration: str, score: Callable[[bytes], float] | None
    ) -> Conversion:
        if calibration != AUTO and (found := self._found(calibration)) is not None:
            return self._reported(found, tensors, calibration)
        checks.require_calibratable(self._function, self._definition, self._examples)
        if calibration != AUTO or score is None:
            return self._reported(self._made(calibration), tensors, calibration)
        made: dict[str, _Made] = {}

        def make(method: str) -> bytes:
            made[method] = self._found(method) or self._made(method)
            return made[method].tflite

        choice = choose(METHODS, make, score)
        return self._reported(made[choice.method], tensors, choice.method, choice.scores)

    @contextlib.contextmanager
    def _timed(self, step: str) -> Iterator[None]:
        started = time.perf_counter()
        yield
        self.seconds[step] = self.seconds.get(step, 0.0) + time.perf_counter() - started

    def _key(self, method: str) -> str:
        options = {"scheme": self._scheme.to_json(), "profile": dataclasses.asdict(self._profile), "io": self._dtypes}
        return cache.key_of(self._digest, {**options, "calibration": method}, self._examples)

    def _found(self, method: str) -> _Made | None:
        """What the cache has of that method."""
        found = None if self._cache_dir is None else cache.read(self._cache_dir, self._key(method))
        if found is None:
            return None
        _LOGGER.info("found in the cache %s", self._cache_dir)
        tflite, rewrites = found
        return _Made(
            tflite=tflite,
            rewrites=tuple(AppliedRewrite(**{**one, "ops": tuple(one["ops"])}) for one in rewrites),
            cached=True,
        )

    def _made(self, method: str) -> _Made:
        return self._deployed(method, self._converted(method))

    def _deployed(self, method: str, tflite: bytes) -> _Made:
        """What the target takes, proved and kept in the cache, of what the converter made."""
        with self._timed("check"):
            tflite, requantized = bias_scales.rescaled(tflite)
            if requantized:
                _LOGGER.info("gave %d biases the scale that their op computes with", requantized)
            rewritten = rewrite(self._widened(self._packed(tflite)), self._profile)
            self._check(rewritten.tflite)
            changed = {name: dtype for name, dtype in self._dtypes.items() if dtype in ("uint8", io_dtypes.FLOAT)}
            tflite = interface.with_dtypes(rewritten.tflite, changed if self._scheme.integer_only else {})
            checks.require_runnable(tflite)
        if self._cache_dir is not None:
            rewrites = [dataclasses.asdict(applied) for applied in rewritten.applied]
            cache.write(self._cache_dir, self._key(method), tflite, rewrites)
        return _Made(tflite=tflite, rewrites=rewritten.applied)

    def _reported(
        self,
        made: _Made,
        calibrated: tuple[str, ...] = (),
        calibration: str = _NO_METHOD,
        candidates: tuple[MethodScore, ...] = (),
    ) -> Conversion:
        report = ConversionReport(
            scheme=self._scheme.to_json(),
            profile=self._profile.name,
            io_dtypes=self._dtypes,
            calibrated=calibrated,
            examples=len(self._examples),
            calibration=calibration,
            candidates=candidates,
            rewrites=made.rewrites,
            seconds={step: round(seconds, 3) for step, seconds in self.seconds.items()},
            cached=made.cached,
        )
        return Conversion(tflite=made.tflite, report=report)

    @property
    def _source(self) -> converter.Source:
        wide = self._scheme.activation_bits == 16
        return converter.Source(
            function=self._function,
            definition=self._definition,
            rewrite=trained_ranges.remove_fake_quantization if wide else int16_ranges.narrow,
            feeds=self._feeds if self._examples else None,
        )

    @property
    def _options(self) -> converter.ConverterOptions:
        per_channel = self._scheme.per_axis_weights and self._profile.per_channel_weights
        return converter.ConverterOptions(
            integer_only=self._scheme.integer_only,
            activation_bits=self._scheme.activation_bits,
            weight_bits=self._scheme.weight_bits,
            per_channel=per_channel,
            # The kernels of Dense layers are trained with one scale.
            per_channel_dense=self._profile.per_channel_dense and per_channel and not self._trained,
        )

    def _feeds(self) -> Iterator[dict[str, npt.NDArray[Any]]]:
        return iter(self._examples)

    @functools.cached_property
    def _calibrated_file(self) -> bytes:
        """What all methods but the plainest begin with."""
        return converter.calibrate(self._source, self._options)

    def _converted(self, method: str) -> bytes:
        with self._timed("convert"):
            if method in (_NO_METHOD, MIN_MAX):
                return converter.run(self._source, self._options)
            return converter.quantize(self._calibrated_file, self._options, self._feeds, method)

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
        checks.require_edges_with_ranges(tflite, self._trained and self._scheme.activation_bits == 8)
