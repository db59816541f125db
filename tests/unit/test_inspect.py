"""`python -m pipelines inspect`: what it says and its exit status; nothing is trained."""

import dataclasses
from collections.abc import Callable
from pathlib import Path
from typing import Any

import keras
import numpy as np
import pytest
import tf_keras
from click.testing import CliRunner, Result

from components.quantization.conversion.audit import audit
from components.quantization.qat.preflight import preflight
from components.targets.edge_tpu import CompilerOptions
from components.targets.nnapi import NnapiOptions
from pipelines import inspection
from pipelines.__main__ import main
from pipelines.configs import load_config
from pipelines.target_plan import TargetPlan

import small_models

pytestmark = pytest.mark.slow
layers = tf_keras.layers


def _inspect(*arguments: object) -> Result:
    return CliRunner().invoke(main, ["inspect", *map(str, arguments)])


def _row(output: str, first: str) -> str:
    """The one line that begins with a word, with one space between its columns."""
    rows = [" ".join(line.split()) for line in output.splitlines() if line.split()[:1] == [first]]
    assert len(rows) == 1, output
    return rows[0]


@pytest.fixture
def saved(tmp_path: Path) -> Callable[..., Path]:
    """Saves layers in a row by tf_keras, as a SavedModel if the name has no suffix; gives the path."""

    def save(shape: tuple[int, ...], *chain: Any, name: str = "model.keras") -> Path:
        tf_keras.Sequential([layers.InputLayer(shape), *chain]).save(tmp_path / name)
        return tmp_path / name

    return save


def test_inspect_shows_plan_coverage_and_mapping_when_given_a_config() -> None:
    result = _inspect("digits")
    assert result.exit_code == 0, result.output
    assert "digits: scheme full_int8, target edge_tpu" in result.output
    assert _row(result.output, "conv1") == "conv1 Conv2D quantize 8-bit weights per axis, fused with what follows"
    assert _row(result.output, "conv1_normalization").endswith("fold into conv1")
    # 8*8 positions by 3*3*1*32 and 3*3*32*32 weights, then 4*4*32*64 and 64*10.
    assert "100.0% of 43,242 parameters, 100.0% of 641,664 multiplications" in result.output
    assert _row(result.output, "CONV_2D") == "CONV_2D 2 edge_tpu Mapped to Edge TPU"
    assert "7 of 7 ops run on edge_tpu" in result.output


def test_inspect_uses_scheme_and_target_when_they_are_given() -> None:
    result = _inspect("digits", "--scheme", "full_int8_per_tensor", "--target", "cpu")
    assert result.exit_code == 0, result.output
    assert "8-bit weights per tensor, fused" in result.output
    assert "7 of 7 ops run on cpu" in result.output


@pytest.fixture
def planned(monkeypatch: pytest.MonkeyPatch) -> None:
    """Gives the config "digits" two targets, each older than INT8 there."""
    plans = (
        TargetPlan(target="edge_tpu", compiler_options=CompilerOptions(min_runtime_version=11)),
        TargetPlan(target="nnapi", compiler_options=NnapiOptions(api_level=29)),
    )
    config = dataclasses.replace(load_config("digits"), targets=plans)
    monkeypatch.setattr(inspection, "load_config", lambda name: config)


@pytest.mark.usefixtures("planned")
@pytest.mark.parametrize(
    ("arguments", "status", "line"),
    [
        ((), 1, "0 of 7 ops run on edge_tpu, by its rules"),  # INT8 since runtime 12
        (("--target", "nnapi"), 1, "0 of 7 ops run on nnapi, by its rules"),  # INT8 since API level 30
        (("--target", "tflm"), 0, "7 of 7 ops run on tflm, by its rules"),
    ],
    ids=["first", "second", "none"],
)
def test_inspect_goes_by_the_compiler_options_of_the_plan_for_the_target(
    arguments: tuple[str, ...], status: int, line: str
) -> None:
    result = _inspect("digits", *arguments)
    assert (result.exit_code, line in result.output) == (status, True), result.output


def test_inspect_refuses_a_config_before_it_loads_the_model_when_its_options_are_of_another_target(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    config = dataclasses.replace(load_config("digits"), target="ethos_u", compiler_options=CompilerOptions())
    monkeypatch.setattr(inspection, "load_config", lambda name: config)
    with pytest.raises(ValueError, match="not options of Vela"):
        inspection.subject_of("digits", None, None, None)


@pytest.mark.filterwarnings("ignore:__array__ implementation doesn't accept a copy keyword")  # Keras, saving
def test_inspect_takes_a_model_of_keras_3(tmp_path: Path) -> None:
    model = keras.Sequential(
        [keras.Input((8, 8, 3)), keras.layers.Conv2D(4, 3, name="conv"), keras.layers.Activation("hard_silu")]
    )
    model.save(tmp_path / "model.keras")
    result = _inspect(tmp_path / "model.keras", "--target", "cpu")
    assert result.exit_code == 0, result.output
    assert _row(result.output, "conv").startswith("conv Conv2D quantize ")


def test_inspect_names_the_ops_that_stay_on_the_cpu_when_the_target_cannot_run_them(
    saved: Callable[..., Path],
) -> None:
    path = saved((8, 8, 3), layers.Conv2D(4, 3), layers.LeakyReLU(name="leaky"), name="saved_model")
    result = _inspect(path, "--target", "edge_tpu")
    assert result.exit_code == 0, result.output
    assert _row(result.output, "LEAKY_RELU") == "LEAKY_RELU 1 CPU Operation not supported"
    assert "1 of 2 ops run on edge_tpu" in result.output
    assert "not on edge_tpu, by index: 1 LEAKY_RELU" in result.output
    told = " ".join(result.output.split())
    assert "first op not there: 1 LEAKY_RELU, layer leaky: Operation not supported; use ReLU6" in told
    everywhere = _inspect(path, "--target", "cpu")
    assert everywhere.exit_code == 0, everywhere.output
    assert "2 of 2 ops run on cpu" in everywhere.output


def test_inspect_ends_with_1_when_the_target_runs_no_op(saved: Callable[..., Path]) -> None:
    result = _inspect(saved((4,), layers.LeakyReLU()), "--target", "edge_tpu")
    assert result.exit_code == 1
    assert "0 of 1 ops run on edge_tpu" in result.output


def test_inspect_ends_with_1_and_names_the_remedy_when_a_layer_is_blocked(saved: Callable[..., Path]) -> None:
    result = _inspect(saved((8, 8, 8, 1), layers.Conv3D(2, 3, name="volume"), layers.Flatten()))
    assert result.exit_code == 1
    assert "blocked: volume (Conv3D): TFLite's CONV_3D computes in floats only; use Conv2D on slices" in result.output
    assert "Not converted" in result.output


def test_inspect_blocks_what_is_not_trained_only_when_asked_to(saved: Callable[..., Path]) -> None:
    tf_keras.utils.set_random_seed(23)  # with these weights the converter gives a gate's bias another scale
    path = saved((6, 4), layers.Conv1D(3, 2), layers.LSTM(3, name="memory"), layers.Dense(2))
    calibrated = _inspect(path, "--target", "cpu")
    assert calibrated.exit_code == 0, calibrated.output
    assert _row(calibrated.output, "memory").startswith("memory LSTM calibrate ")
    assert "layers calibrated: 1, blocked: 0" in calibrated.output
    failing = _inspect(path, "--target", "cpu", "--untrainable", "fail")
    assert failing.exit_code == 1
    assert "blocked: memory (LSTM)" in failing.output


def test_inspect_says_why_when_the_converter_refuses_the_model(saved: Callable[..., Path]) -> None:
    result = _inspect(saved((None, None, 3), layers.Conv2D(4, 3)))
    assert result.exit_code == 1
    assert "Not converted: input shapes: input 'input_" in result.output


def test_inspect_shows_the_mapping_alone_when_the_scheme_is_not_trained() -> None:
    result = _inspect("digits", "--scheme", "float16", "--target", "cpu")
    assert result.exit_code == 0, result.output
    assert "scheme float16 is not trained" in result.output
    assert "conv1_normalization" not in result.output


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["nowhere"], "nowhere: got neither a config nor a path, expected one of devices, digits"),
        (["nowhere.keras"], "nowhere.keras: got nothing there"),
        (["nowhere.keras", "--target", "moon"], "unknown target 'moon': there are cpu, edge_tpu"),
        (["nowhere.keras", "--scheme", "int16x8"], "target 'edge_tpu' cannot run scheme 'int16x8'"),
        (["digits", "--scheme", "int3"], "unknown scheme 'int3'"),
        (["digits", "--untrainable", "hope"], "'hope' is not one of 'calibrate', 'fail'"),
    ],
)
def test_inspect_ends_with_2_when_asked_for_what_is_not_there(arguments: list[str], message: str) -> None:
    result = _inspect(*arguments)
    assert result.exit_code == 2
    assert message in result.output


def test_inspect_cuts_nothing_when_piped(saved: Callable[..., Path]) -> None:
    name = "a_name_" * 20
    result = _inspect(saved((3,), layers.Dense(2, name=name)))  # click's runner is no terminal
    assert result.exit_code == 0, result.output
    (row,) = (line for line in result.output.splitlines() if line.startswith(name))
    assert row.endswith("8-bit weights per tensor, range trained")


def test_preflight_leaves_the_model_alone_and_gives_an_integer_model() -> None:
    model = small_models.convolutional()
    before = model.get_weights()
    assert audit(preflight(model), profile="edge_tpu").offenders == ()
    assert all(np.array_equal(old, new) for old, new in zip(before, model.get_weights(), strict=True))


def test_preflight_converts_when_an_untrained_weight_makes_a_tensor_zero() -> None:
    inputs = tf_keras.Input((8, 8, 2))
    branch = layers.BatchNormalization(gamma_initializer="zeros")(layers.Conv2D(2, 3, padding="same")(inputs))
    model = tf_keras.Model(inputs, layers.Add()([inputs, branch]))
    assert audit(preflight(model)).integer_only


def test_preflight_gives_the_widths_of_the_scheme() -> None:
    found = preflight(small_models.convolutional(), "int16x8", "cpu")
    assert audit(found).integer_only
