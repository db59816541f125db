import dataclasses
from typing import Any

import pytest
import tensorflow as tf

from components.evaluation.baseline import Origin, foreign, incompatibilities
from components.evaluation.unusable_baseline import run_of_last_blessed, why_unusable
from components.quantization.contract.schema import Contract, Input, Output, Preparation, Verification


def _contract(**changes: Any) -> Contract:
    """An int8 image in, three scores out."""
    image = Input(
        name="image",
        position=0,
        tensor_index=0,
        shape=(1, 8, 8, 1),
        dtype="int8",
        scale=0.0625,
        zero_point=-128,
        real_min=0.0,
        real_max=15.9375,
        layout="NHWC",
        preparation=Preparation(
            source="pixels",
            source_dtype="uint8",
            source_shape=(1, 8, 8, 1),
            raw_features=("pixels",),
            kind="identity",
            shift=-128,
            verified=Verification(method="exhaustive", count=256, mismatches=0),
        ),
    )
    scores = Output(
        name="scores",
        position=0,
        tensor_index=9,
        shape=(1, 3),
        dtype="int8",
        scale=0.00390625,
        zero_point=-128,
        real_min=0.0,
        real_max=0.99609375,
        layout="?",
        labels=("cat", "dog", "cow"),
    )
    contract = Contract(tflite_sha256="0" * 64, signature="serving_default", inputs=(image,), outputs=(scores,))
    return dataclasses.replace(contract, **changes)


_OURS = _contract()
(_IMAGE,), (_SCORES,) = _OURS.inputs, _OURS.outputs


def test_incompatibilities_are_none_when_only_scales_places_and_bytes_differ() -> None:
    image = dataclasses.replace(_IMAGE, scale=0.125, zero_point=0, tensor_index=4, shape=(4, 8, 8, 1))
    other = _contract(tflite_sha256="1" * 64, inputs=(image,))
    assert incompatibilities(_OURS.to_json(), other.to_json()) == ()


@pytest.mark.parametrize(
    ("baseline", "expected"),
    [
        (
            _contract(inputs=(dataclasses.replace(_IMAGE, shape=(1, 9, 9, 1)),)),
            ("input 'image': shape 9x9x1 became 8x8x1",),
        ),
        (_contract(inputs=(dataclasses.replace(_IMAGE, dtype="uint8"),)), ("input 'image': dtype uint8 became int8",)),
        (
            _contract(
                inputs=(
                    dataclasses.replace(
                        _IMAGE, preparation=dataclasses.replace(_IMAGE.preparation, raw_features=("jpeg",))
                    ),
                )
            ),
            ("input 'image': raw features jpeg became pixels",),
        ),
        (
            _contract(outputs=(dataclasses.replace(_SCORES, labels=("dog", "cat", "cow")),)),
            ("output 'scores': labels dog, cat, cow became cat, dog, cow",),
        ),
        (
            _contract(outputs=(dataclasses.replace(_SCORES, shape=(1, 2), labels=("cat", "dog")),)),
            ("output 'scores': labels cat, dog became cat, dog, cow", "output 'scores': shape 2 became 3"),
        ),
        (
            _contract(outputs=(dataclasses.replace(_SCORES, name="logits"),)),
            ("output 'logits' is gone", "output 'scores' is new"),
        ),
    ],
)
def test_incompatibilities_name_what_differs(baseline: Contract, expected: tuple[str, ...]) -> None:
    assert incompatibilities(_OURS.to_json(), baseline.to_json()) == expected


def test_incompatibilities_say_that_the_baseline_cannot_be_read_but_raise_for_the_model_itself() -> None:
    old = '{"schema_version": 0}'
    (difference,) = incompatibilities(_OURS.to_json(), old)
    assert difference.startswith("its contract cannot be read: io_contract.json: got schema_version 0")
    with pytest.raises(ValueError, match="got schema_version 0"):
        incompatibilities(old, _OURS.to_json())


def test_foreign_names_what_the_last_blessed_model_is_of_another() -> None:
    ours = Origin(pipeline="digits", task="tasks.digits", target="edge_tpu")
    assert str(ours) == "digits/tasks.digits/edge_tpu"
    assert foreign(ours, ours) == ()
    assert foreign(ours, dataclasses.replace(ours, target="cpu")) == ("it is of target cpu, not edge_tpu",)
    assert foreign(ours, Origin(pipeline="letters", task="", target="edge_tpu")) == (
        "it is of pipeline letters, not digits",
        "it is of task (not known), not tasks.digits",
    )
    nothing_known = Origin(pipeline="", task="", target="cpu")
    assert foreign(nothing_known, nothing_known) == (
        "it is of pipeline (not known), not (not known)",
        "it is of task (not known), not (not known)",
    )


@pytest.mark.parametrize(
    ("error", "why"),
    [
        (ValueError("two\nlines"), "its own transform: two"),
        (RuntimeError("tflite failed"), "its own transform: tflite failed"),
        (OSError("SavedModel file does not exist"), "its own transform: SavedModel file does not exist"),
        (tf.errors.UnavailableError(None, None, "503"), ""),
        (tf.errors.ResourceExhaustedError(None, None, "out of memory"), ""),
        (ConnectionResetError("gone"), ""),
        (TypeError("a mistake in this package"), ""),
    ],
)
def test_last_blessed_model_is_at_fault_only_for_what_another_try_does_not_mend(error: Exception, why: str) -> None:
    with pytest.raises(type(error) if not why else ValueError) as raised, run_of_last_blessed():
        raise error
    assert why_unusable(RuntimeError(f"Traceback\n{raised.value} [while running 'Predict']")) == why
