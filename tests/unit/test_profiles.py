"""Which schemes the devices of a profile can run."""

import dataclasses
import json
from pathlib import Path

import pytest

from components.quantization.conversion import profiles
from components.quantization.conversion.profiles import load_profile
from components.quantization.plugins import member_names
from components.quantization.schemes import load_scheme, scheme_names

_INT8 = {"full_int8", "full_int8_per_tensor"}
_LEGAL = {
    "a311d": {"full_int8_per_tensor"},
    "cpu": {*_INT8, "dynamic_range", "float16", "int16x8", "int4_weights"},
    "edge_tpu": _INT8,
    "ethos_u": {*_INT8, "int16x8"},
    "nnapi": _INT8,
    "tflm": {*_INT8, "int16x8"},
}


def test_every_profile_has_a_row_of_legal_schemes() -> None:
    assert set(member_names(profiles.__name__)) == set(_LEGAL)


@pytest.mark.parametrize("profile", _LEGAL)
def test_profile_has_the_name_of_its_file(profile: str) -> None:
    assert load_profile(profile).name == profile


@pytest.mark.parametrize("scheme", scheme_names())
@pytest.mark.parametrize("profile", _LEGAL)
def test_check_refuses_what_the_devices_cannot_run(profile: str, scheme: str) -> None:
    if scheme in _LEGAL[profile]:
        load_profile(profile).check(load_scheme(scheme))
        return
    choose = f"target '{profile}' cannot run scheme '{scheme}': .*; choose one of {', '.join(sorted(_LEGAL[profile]))}$"
    with pytest.raises(ValueError, match=choose):
        load_profile(profile).check(load_scheme(scheme))


def test_check_lists_width_and_granularity_when_both_are_wrong() -> None:
    with pytest.raises(ValueError, match="16, expected weights of 8 .* 8 bits; got a scale per output channel"):
        load_profile("a311d").check(load_scheme("int16x8"))


@pytest.mark.parametrize(
    ("profile", "dense", "weights"),
    [
        ("a311d", False, False),
        ("cpu", True, True),
        ("edge_tpu", False, True),
        ("ethos_u", False, True),
        ("nnapi", False, True),
        ("tflm", False, True),
    ],
)
def test_profile_says_where_a_scale_per_channel_may_be(profile: str, dense: bool, weights: bool) -> None:
    loaded = load_profile(profile)
    assert (loaded.per_channel_dense, loaded.per_channel_weights) == (dense, weights)


def test_profile_is_refused_when_dense_layers_alone_may_be_per_channel() -> None:
    with pytest.raises(ValueError, match="profile 'cpu': got per_channel_dense=True with per_channel_weights=False"):
        dataclasses.replace(load_profile("cpu"), per_channel_weights=False)


def test_profile_brings_its_custom_ops() -> None:
    assert load_profile("edge_tpu").allowed_custom_ops == ("edgetpu-custom-op",)
    assert load_profile("cpu").allowed_custom_ops == ()


@pytest.mark.parametrize(
    ("profile", "types", "bits"),
    [
        ("a311d", {"INT8", "UINT8"}, (8,)),
        ("cpu", {"INT8", "UINT8", "INT16", "FLOAT32"}, (8, 16, 32)),
        ("edge_tpu", {"INT8", "UINT8"}, (8,)),
        ("ethos_u", {"INT8", "UINT8", "INT16"}, (8, 16)),
        ("nnapi", {"INT8", "UINT8"}, (8,)),
        ("tflm", {"INT8", "INT16"}, (8, 16)),
    ],
)
def test_profile_says_in_which_types_it_computes(profile: str, types: set[str], bits: tuple[int, ...]) -> None:
    loaded = load_profile(profile)
    assert (set(loaded.activation_types), loaded.activation_bits) == (types, bits)


def test_profile_is_refused_when_there_is_no_such_type() -> None:
    with pytest.raises(ValueError, match="got activation_types INT4, expected some of INT8, UINT8, INT16, FLOAT32"):
        dataclasses.replace(load_profile("cpu"), activation_types=("INT8", "INT4"))


def test_edge_tpu_computes_in_the_types_of_what_its_compiler_mapped(shared: Path) -> None:
    oracle = json.loads((shared / "edgetpu" / "oracle.json").read_text())
    mapped = {
        op["in"][0]["t"].upper()
        for pair in oracle["pairs"]
        for op in pair["ops"]
        if op["where"] == "tpu" and op["op"] in ("CONV_2D", "DEPTHWISE_CONV_2D", "FULLY_CONNECTED")
    }
    assert mapped == set(load_profile("edge_tpu").activation_types)
