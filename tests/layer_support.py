"""Takes a model of few layers all the way to integers and measures how far the result is from the float model."""

import dataclasses
import json
import math
import os
from pathlib import Path
from typing import Any

import keras
import numpy as np
import pytest
import tensorflow as tf
import tf_keras

from components.quantization import convert, plan, quantize_model
from components.quantization.autograph import leave_libraries_alone

from layer_cases import IMAGE, Builder, Group

GOLDEN = Path(__file__).parent / "goldens" / "layer_support.json"
_EXAMPLES = 16
_STEPS = 2
_VOCABULARY = 20
_MISSING = {"verdict": "not in the golden: run with --update-goldens", "max_lsb": None}
# Of an output, in steps of the integers: what the support table tells apart.
_BOUNDS = (0, 1, 2, 4, 8, 16, 32, 64)
_ROUNDING = 0.01

Golden = dict[str, dict[str, dict[str, Any]]]


@dataclasses.dataclass(frozen=True, kw_only=True, slots=True)
class Measured:
    """What became of a case.

    Attributes:
      keras: Version of its Keras, 2 or 3.
      verdict: "trained", "calibrated" or "refused: " and the reasons.
      max_lsb: Largest difference between the integer model and the quantization-aware one, in steps of the output.
      sqnr_db: Ratio of signal to error of the integer model against the float one, of the worst output.
    """

    keras: int
    verdict: str
    max_lsb: float = 0.0
    sqnr_db: float = math.inf


def parameters(groups: dict[str, Group], prefix: str = "") -> list[Any]:
    """Returns one parameter set for each case: its group's name, the group, and its own name."""
    return [
        pytest.param(name, group, case, id=f"{prefix}{case}") for name, group in groups.items() for case in group.cases
    ]


def check(row: str, group: Group, case: str, update: bool) -> None:
    """Measures a case and compares it with the golden and with the bound of its group.

    Args:
      row: Name of the group.
      group: The group.
      case: Name of the case.
      update: Whether to write what differs from the golden, or is worse, into it. What is better stays, so that an
        update on either stack of TensorFlow leaves what holds on both.
    """
    found = measure(group.cases[case], group.pixels)
    version = f"Keras {found.keras}"
    golden = _read().get(row, {}).get(version, {}).get(case, _MISSING)
    if update and not _holds(found, golden):
        bound = next((bound for bound in _BOUNDS if found.max_lsb <= bound + _ROUNDING), None)
        golden = {"verdict": found.verdict, "max_lsb": bound}
        _update(row, version, case, golden)
    assert found.verdict == golden["verdict"]
    assert _holds(found, golden), found
    assert found.sqnr_db >= group.sqnr_db, found


def _holds(found: Measured, golden: dict[str, Any]) -> bool:
    within = golden["max_lsb"] is None or found.max_lsb <= golden["max_lsb"] + _ROUNDING
    return found.verdict == golden["verdict"] and within


def _read() -> Golden:
    golden: Golden = json.loads(GOLDEN.read_text()) if GOLDEN.exists() else {}
    return golden


def _update(row: str, version: str, case: str, entry: dict[str, Any]) -> None:
    golden = _read()
    golden.setdefault(row, {}).setdefault(version, {})[case] = entry
    temporary = GOLDEN.with_suffix(".new")
    temporary.write_text(json.dumps(golden, indent=1, sort_keys=True) + "\n")
    os.replace(temporary, GOLDEN)


def measure(build: Builder, pixels: bool = False) -> Measured:
    """Plans, quantizes, trains for two steps, converts to integers alone and runs; raises where any of that does."""
    leave_libraries_alone()
    tf_keras.backend.clear_session()
    keras.utils.clear_session()
    tf_keras.utils.set_random_seed(1)
    model = build()
    version = 2 if isinstance(model, tf_keras.Model) else 3
    _randomize(model)
    found = plan(model)
    if found.blockers:
        reasons = "; ".join(dict.fromkeys(layer.reason for layer in found.blockers))
        return Measured(keras=version, verdict=f"refused: {reasons}")
    inputs = _examples(model, pixels)
    arguments = inputs if len(inputs) > 1 else inputs[0]
    model(arguments, training=True)  # gives normalizations the statistics of the examples
    floats = _arrays(model(arguments, training=False))
    quantized = quantize_model(model)
    quantized.compile(tf_keras.optimizers.legacy.SGD(1e-6), "mse", run_eagerly=True)  # faster for two steps
    for _ in range(_STEPS):
        quantized.train_on_batch(arguments, floats)
    # Other examples, as in life: calibrated ranges are not quite those that were trained.
    others = dict(zip(quantized.input_names, _examples(model, pixels, seed=4), strict=True))
    # Raises if a float tensor is left; what was trained needs no examples.
    # For the CPU: the Edge TPU's compiler does not know all ops.
    tflite = convert(quantized, representative_dataset=[others] if found.calibrated else None, profile="cpu")
    named = dict(zip(quantized.input_names, inputs, strict=True))
    integers, steps = _run(tflite, named, quantized.output_names)
    expected = _arrays(quantized(arguments, training=False))
    return Measured(
        keras=version,
        verdict="calibrated" if found.calibrated else "trained",
        max_lsb=max(float(np.max(np.abs(a - b)) / s) for a, b, s in zip(expected, integers, steps, strict=True)),
        sqnr_db=min(_sqnr_db(a, b) for a, b in zip(floats, integers, strict=True)),
    )


def _randomize(model: Any) -> None:
    """Gives biases and normalizations other values than the ones and zeros that they start with."""
    random = np.random.default_rng(2)
    for weight in model.weights:
        name = (weight.path if hasattr(weight, "path") else weight.name).rsplit("/", 1)[-1].split(":")[0]
        if name == "gamma":
            weight.assign(random.uniform(0.5, 1.5, weight.shape))
        elif name in ("beta", "bias"):
            weight.assign(random.normal(scale=0.2, size=weight.shape))


def _examples(model: Any, pixels: bool, seed: int = 3) -> list[Any]:
    """Arrays of 16 examples for the inputs of a model; a subclassed one, which does not list them, takes images."""
    random = np.random.default_rng(seed)
    arrays = []
    for spec in getattr(model, "inputs", None) or [tf.TensorSpec((None, *IMAGE), tf.float32)]:
        shape = (_EXAMPLES, *spec.shape[1:])
        if tf.as_dtype(spec.dtype).is_integer:
            arrays.append(random.integers(0, _VOCABULARY, shape).astype(np.int32))
        else:
            values = random.uniform(0.0, 255.0, shape) if pixels else random.normal(size=shape)
            arrays.append(values.astype(np.float32))
    return arrays


def _arrays(outputs: Any) -> list[Any]:
    return [np.asarray(value) for value in tf.nest.flatten(outputs)]


def _sqnr_db(signal: Any, noisy: Any) -> float:
    noise = float(np.sum((signal - noisy) ** 2))
    return 10.0 * math.log10(float(np.sum(signal**2)) / noise) if noise else math.inf


def _run(tflite: bytes, examples: dict[str, Any], outputs: list[str]) -> tuple[list[Any], list[float]]:
    """Real values of the outputs of the integer model, example by example, and the size of their steps."""
    # XNNPACK, the default delegate, rounds otherwise than the kernels.
    resolver = tf.lite.experimental.OpResolverType.BUILTIN_WITHOUT_DEFAULT_DELEGATES
    interpreter = tf.lite.Interpreter(model_content=tflite, experimental_op_resolver_type=resolver, num_threads=1)
    interpreter.allocate_tensors()
    runner = interpreter.get_signature_runner()
    details, results = runner.get_input_details(), runner.get_output_details()
    rows = []
    for index in range(_EXAMPLES):
        feed = {}
        for name, array in examples.items():
            scale, zero_point = details[name]["quantization"]
            values = array[index : index + 1]
            if scale:
                values = np.clip(np.rint(values / np.float32(scale)) + zero_point, -128, 127)
            feed[name] = values.astype(details[name]["dtype"])
        interpreter.reset_all_variables()  # an LSTM's state would outlive its example
        rows.append(runner(**feed))
    scales = [results[name]["quantization"] for name in outputs]
    raw = [np.concatenate([row[name] for row in rows]).astype(np.float64) for name in outputs]
    return [(values - zero) * scale for values, (scale, zero) in zip(raw, scales, strict=True)], [s for s, _ in scales]
