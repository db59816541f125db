"""One conversion, step by step: freeze, convert by trained ranges or calibrate, rewrite for the target, prove."""

import contextlib
import ctypes
import dataclasses
import functools
import gc
import logging
import time
from collections.abc import Callable, Iterable, Iterator, Mapping
from pathlib import Path
from typing import Any

import numpy.typing as npt

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
    large_weights,
    lstm_scales,
    trained_ranges,
)
from components.quantization.conversion.calibration import AUTO, METHODS, MIN_MAX, MethodScore, choose
from components.quantization.conversion.dense_function import DenseFunction
from components.quantization.conversion.frozen_graph import freeze
from components.quantization.conversion.large_weights import LargeWeights, NotRestoredError, freeze_aside
from components.quantization.conversion.profiles import ConversionProfile
from components.quantization.conversion.report import Conversion, ConversionReport
from components.quantization.conversion.representative_dataset import Batch, feeds
from components.quantization.conversion.rewrites import AppliedRewrite, rewrite
from components.quantization.schemes import QuantizationScheme

_LOGGER = logging.getLogger(__name__)

_ALL = "*"
_NO_METHOD = ""  # of calibration, where training gave all ranges


@dataclasses.dataclass(frozen=True, kw_only=True, slots=True)
class _Made:
    """A file that is ready: converted now, or found in the cache."""

    tflite: bytes
    rewrites: tuple[AppliedRewrite, ...]
    cached: bool = False


class ConversionRun:
    """What all steps of a conversion need to know."""

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
        self._weights: tuple[LargeWeights, ...] = ()
        self.seconds: dict[str, float] = {}

    def run(
        self, dataset: Iterable[Batch] | None, calibration: str, score: Callable[[bytes], float] | None
    ) -> Conversion:
        """Converts; the arguments are those of `convert_with_report`.

        Raises:
          NotIntegerOnlyError: As `convert`.
          ValueError: As `convert`.
        """
        checks.require_scheme(self._scheme, self._trained)
        checks.require_no_fused_halves(self._scheme, converter.has_fused_functions(self._function.concrete))
        checks.require_finite_weights(self._function.concrete)
        self._freeze(aside=self._ranges_are_known and self._scheme.integer_only)
        # Of the graph as it is now: conversion rewrites it.
        self._wide = trained_ranges.wide_tensors(self._definition)
        if self._cache_dir is not None:
            self._digest = cache.digest_of(self._definition, (one.codes for one in self._weights))
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
                tflite = self._complete(tflite)
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
        if self._weights:
            self._freeze(aside=False)
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
        options = {
            "scheme": self._scheme.to_json(),
            "profile": dataclasses.asdict(self._profile),
            "io": list(self._dtypes.items()),  # in order: the graph does not say it
        }
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
            tflite, unified = lstm_scales.unified(tflite)
            if unified:
                _LOGGER.info("gave %d LSTMs one scale of state and output", unified)
            tflite, requantized = bias_scales.rescaled(tflite)
            if requantized:
                _LOGGER.info("gave %d biases the scale that their op computes with", requantized)
            rewritten = rewrite(self._packed(self._widened(tflite)), self._profile)
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
            io_dtypes=interface.dtypes_of(made.tflite),
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

    def _freeze(self, aside: bool) -> None:
        """Freezes the function, and perhaps keeps its large weights beside the graph."""
        with self._timed("freeze"):
            if aside and not converter.has_fused_functions(self._function.concrete):
                if large_weights.may_be_large(self._function.concrete):
                    _hand_back_freed_memory()
                found = freeze_aside(self._function.concrete, self._options.per_channel)
            else:
                found = freeze(self._function.concrete), ()
        self._definition, self._weights = found
        if self._weights:
            _hand_back_freed_memory()

    def _complete(self, tflite: bytes) -> bytes:
        """A file of trained ranges with the weights in it that were kept beside its graph."""
        weights, self._weights = self._weights, ()  # of no use from here on, and large
        if weights:
            _hand_back_freed_memory()
        try:
            return large_weights.restored(tflite, weights)
        except NotRestoredError as reason:
            _LOGGER.info("converting with all weights in the graph: %s", reason)
        self._freeze(aside=False)
        return self._converted(_NO_METHOD)

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


def _hand_back_freed_memory() -> None:
    """Gives the system what is free: glibc keeps it, in pieces too small for what is needed next."""
    gc.collect()
    trim = getattr(ctypes.CDLL(None), "malloc_trim", None)
    if trim is not None:
        trim(0)
