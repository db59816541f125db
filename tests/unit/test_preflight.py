"""Gates of a target held against a model before it is trained, and while it is."""

import logging
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import tensorflow as tf
import tf_keras

from components.evaluation.gates import Gates
from components.quantization.qat.parameters import TrainingParameters
from components.quantization.qat.preflight import preflight
from components.quantization.qat.training import QuantizationAwareTraining, TrainedModels
from components.quantization.schemes import load_scheme
from components.target_gates import planned_target
from components.target_gates.planned_target import PlannedTarget, conversion_of
from components.targets.edge_tpu import CompilerOptions

from edge_tpu_compilers import replaying

pytestmark = pytest.mark.slow
layers = tf_keras.layers


class LearnedRow(layers.Layer):  # type: ignore[misc]
    """Appends a row of weights to an image. They start so small that they are all the zero point as integers.

    The Edge TPU's compiler maps a CONCATENATION with a constant only if that is all zeros.
    """

    def build(self, shape: Any) -> None:
        """Makes the row."""
        start = tf_keras.initializers.RandomNormal(stddev=1e-4)
        self.row = self.add_weight("row", (1, 1, *shape[2:]), initializer=start)

    def call(self, x: Any) -> Any:
        """Appends it to each image."""
        return tf.concat([x, tf.tile(self.row, [tf.shape(x)[0], 1, 1, 1])], axis=1)


def _build(*middle: tf_keras.layers.Layer) -> tf_keras.Model:
    model = tf_keras.Sequential(
        [
            layers.InputLayer((4, 4, 2), name="image"),
            layers.Conv2D(2, 1, activation="relu6", name="first"),
            *middle,
            layers.Conv2D(4, 3, name="second"),
            layers.Flatten(name="flat"),
            layers.Dense(3, name="scores"),
        ]
    )
    model.compile("adam", tf_keras.losses.SparseCategoricalCrossentropy(from_logits=True))
    return model


def _leaky() -> tf_keras.Model:
    return _build(layers.LeakyReLU(name="leaky"))


def _weighty() -> tf_keras.Model:
    return _build(LearnedRow(name="row"))


def _data(seed: int | None) -> tf.data.Dataset:
    del seed
    images = np.random.default_rng(3).random((64, 4, 4, 2)).astype(np.float32)
    return tf.data.Dataset.from_tensor_slices(({"image": images}, np.arange(64) % 3)).batch(8)


def _train(build: Any, *targets: PlannedTarget, data: Any = _data, **knobs: Any) -> TrainedModels:
    # The float model stays as it was, so that what changes, changes in fine-tuning.
    fast: dict[str, Any] = {"float_epochs": 1, "qat_epochs": 1, "float_learning_rate": 1e-6, "qat_learning_rate": 0.1}
    training = QuantizationAwareTraining(data, data, TrainingParameters(batch_size=8, **{**fast, **knobs}))
    return training.run(build, load_scheme("full_int8"), conversions=[conversion_of(target) for target in targets])


def _edge_tpu(*gates: str, **fields: Any) -> PlannedTarget:
    return PlannedTarget(target="edge_tpu", gates=Gates.of(*gates), **fields)


def test_training_stops_before_a_step_when_an_op_in_the_middle_breaks_the_gate_of_the_target() -> None:
    seeds = []

    def data(seed: int | None) -> tf.data.Dataset:
        seeds.append(seed)
        return _data(seed)

    with pytest.raises(ValueError, match="cannot keep the gates") as raised:
        _train(_leaky, _edge_tpu("macs_on_target >= 0.95", "accuracy drop <= 0.01"), data=data)
    assert set(seeds) == {None}  # a pass that trains has a seed
    # By hand: 4*4 pixels * 2 * 2 of `first`; 2*2 * 4 * 3*3*2 of `second` and 16 * 3 of `scores` behind the break.
    share = f"{64 / (64 + 288 + 48):.12g}"
    message = str(raised.value)
    assert f"macs_on_target is {share}, predicted by static analysis" in message
    assert "change layer 'leaky' (LEAKY_RELU: Operation not supported): use ReLU6" in message
    assert "second (CONV_2D: More than one subgraph is not supported)" in message
    assert "target 'edge_tpu', tried before anything was trained" in message
    assert len(message.splitlines()) == 1


def test_training_names_every_target_that_a_model_does_not_suit() -> None:
    cpu = PlannedTarget(target="cpu", gates=Gates.of("model_bytes <= 100", "macs_on_target >= 0.95"))
    with pytest.raises(ValueError, match="target 'edge_tpu', .* cannot keep the gates of target 'cpu'") as one:
        _train(_leaky, _edge_tpu("first_cpu_op in none"), cpu)
    assert "first_cpu_op is LEAKY_RELU" in str(one.value)
    assert "fails: model_bytes <= 100" in str(one.value)
    assert str(one.value).count("change layer") == 1  # a file is not smaller without an op off the target


def test_training_goes_on_and_says_the_figures_when_the_gate_is_lower(caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.INFO)
    _train(_leaky, _edge_tpu("macs_on_target >= 0.1", "first_cpu_op in LEAKY_RELU"), probe_steps=4)
    looks = [message for message in caplog.messages if "of the multiplications on target" in message]
    assert [look.partition(":")[0] for look in looks] == [
        "before anything was trained",
        "after 4 steps of qat training",
    ]
    assert "1 of 5 ops and 16.0% of the multiplications on target edge_tpu" in looks[0]


def test_probe_stops_the_training_when_weights_break_the_gate_after_some_steps() -> None:
    gated = _edge_tpu("macs_on_target >= 0.95")
    with pytest.raises(ValueError, match="tried after 4 steps of qat training: fails: macs_on_target") as raised:
        _train(_weighty, gated, probe_steps=4)
    assert "change layer 'row' (CONCATENATION: Operation is otherwise supported, but not mapped" in str(raised.value)


@pytest.mark.extended
def test_probe_changes_nothing_of_the_training_and_can_be_left_out() -> None:
    probed, plain = (
        _train(_leaky, _edge_tpu("macs_on_target >= 0.1"), probe_steps=steps).quantized_model for steps in (3, 0)
    )
    assert [layer.name for layer in probed.layers] == [layer.name for layer in plain.layers]
    for one, other in zip(probed.get_weights(), plain.get_weights(), strict=True):
        np.testing.assert_array_equal(one, other)
    _train(_weighty, _edge_tpu("macs_on_target >= 0.95"), probe_steps=0)


def test_gates_are_held_by_rules_when_the_compiler_fails_on_an_unfinished_model(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    double = replaying(tmp_path, [{"output": "Internal compiler error. Aborting! \n", "exit": 1}])
    options = CompilerOptions(compiler=str(double.path)).to_json()
    tflite = preflight(_leaky())
    with pytest.raises(ValueError, match="predicted by static analysis"):
        _edge_tpu("macs_on_target >= 0.95", options=options).hold(tflite, "now")
    assert double.calls
    assert "fails on an unfinished model" in caplog.text
    called = len(double.calls)
    _edge_tpu(options=options).hold(tflite, "now")  # without gates there is nothing to compile for
    assert len(double.calls) == called


def test_gates_are_held_by_rules_for_what_the_options_ask_for(tmp_path: Path) -> None:
    failing = replaying(tmp_path, [{"output": "Internal compiler error. Aborting! \n", "exit": 1}]).path
    tflite = preflight(_leaky())
    gate = "macs_on_target >= 0.1"
    for compiler in (failing, tmp_path / "none"):
        usual, old = (CompilerOptions(compiler=str(compiler), min_runtime_version=version) for version in (14, 10))
        _edge_tpu(gate, options=usual.to_json()).hold(tflite, "now")
        with pytest.raises(ValueError, match="macs_on_target is 0, predicted by static analysis"):
            _edge_tpu(gate, options=old.to_json()).hold(tflite, "now")


def test_unfinished_model_is_compiled_once_and_not_searched(tmp_path: Path) -> None:
    double = replaying(tmp_path, [{"output": "Internal compiler error. Aborting! \n", "exit": 1}])
    options = CompilerOptions(compiler=str(double.path), attempts=3, search_steps=(10, 1)).to_json()
    _edge_tpu("macs_on_target >= 0.1", options=options).hold(preflight(_leaky()), "now")
    assert len([call for call in double.calls if "--version" not in call]) == 1


def test_targets_survive_json_and_keep_only_overrides_of_their_gates() -> None:
    one = _edge_tpu("macs_on_target >= 0.95", "accuracy >= 0.9", io_dtype={"image": "uint8"}, options="{}")
    assert planned_target.from_json(planned_target.to_json([one])) == (one,)
    assert str(one.gates.before_training().bounds[0]) == "macs_on_target >= 0.95"
