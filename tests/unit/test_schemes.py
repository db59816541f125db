import pytest

from components.quantization.conversion import default_io_dtype, require_io_dtype
from components.quantization.conversion.profiles import load_profile
from components.quantization.schemes import QuantizationScheme, load_scheme, scheme_names


@pytest.mark.parametrize(
    ("values", "violations"),
    [
        ({"weight_bits": 3}, ["3-bit weights with 8-bit activations (weights and activations of 8 and 8, 4 and 8, "]),
        ({"weight_bits": 4, "activation_bits": 16}, ["4-bit weights with 16-bit activations"]),
        ({"overrides": (("(", "skip"),)}, ["overrides[0]: '(', missing ), unterminated subpattern at position 0"]),
        ({"overrides": (("^a$", "float"),)}, ["'float' (one of skip, int8_weights, int4_weights, int16_activations)"]),
        ({"overrides": (("^a$",),)}, ["('^a$',) (a pair of a regular expression and one of skip, "]),
        (
            {"activation_bits": 16, "overrides": (("^a$", "int4_weights"),)},
            ["'int4_weights' beside 16-bit activations (int8_weights or skip)"],
        ),
        (
            {"activation_bits": 32, "overrides": (("^a$", "skip"),)},
            ["overrides (none in a scheme that is not trained)"],
        ),
        (
            {"weight_bits": 5, "overrides": (("[", "skip"), ("^a$", "int2"))},
            ["5-bit weights", "overrides[0]: '['", "overrides[1]: 'int2'"],
        ),
    ],
)
def test_scheme_lists_all_violations_when_made(values: dict[str, object], violations: list[str]) -> None:
    with pytest.raises(ValueError, match="^scheme 'mine': got ") as raised:
        QuantizationScheme(name="mine", **values)  # type: ignore[arg-type]
    assert [violation for violation in violations if violation not in str(raised.value)] == []
    assert "\n" not in str(raised.value)


def test_scheme_gives_the_first_override_that_matches() -> None:
    scheme = QuantizationScheme(
        name="mine",
        weight_bits=4,
        overrides=(("^conv1$|^probabilities$", "int8_weights"), ("se_", "skip"), ("1", "int4_weights")),
    )
    assert scheme.weight_bits_of("conv1") == 8
    assert scheme.weight_bits_of("block_se_reduce1") is None
    assert scheme.weight_bits_of("conv12") == 4
    assert scheme.weight_bits_of("dense") == 4
    assert scheme.all_weight_bits == (4, 8)


def test_scheme_survives_its_json_when_it_has_overrides() -> None:
    scheme = QuantizationScheme(name="mine", overrides=((".*se_.*", "skip"), ("^last$", "int4_weights")))
    assert QuantizationScheme.from_json(scheme.to_json()) == scheme
    assert scheme.to_json().startswith(
        '{"activation_bits":8,"name":"mine","overrides":[[".*se_.*","skip"],["^last$","int4_weights"]]'
    )


def test_scheme_reads_json_without_overrides_when_it_is_older() -> None:
    text = '{"activation_bits":8,"name":"full_int8","per_axis_weights":true,"weight_bits":8}'
    assert QuantizationScheme.from_json(text) == load_scheme("full_int8")


def test_scheme_is_trained_when_it_is_of_integers() -> None:
    integer = {name for name in scheme_names() if load_scheme(name).integer_only}
    assert integer == {"full_int8", "full_int8_per_tensor", "int16x8", "int4_weights"}
    assert integer == {name for name in scheme_names() if load_scheme(name).trained}


@pytest.mark.parametrize("name", scheme_names())
def test_profile_of_the_cpu_runs_every_scheme(name: str) -> None:
    load_profile("cpu").check(load_scheme(name))


@pytest.mark.parametrize("name", [name for name in scheme_names() if not name.startswith("full_int8")])
def test_profile_of_the_edge_tpu_refuses_a_scheme_when_it_is_not_of_8_bits(name: str) -> None:
    with pytest.raises(ValueError, match=f"target 'edge_tpu' cannot run scheme '{name}': got ") as raised:
        load_profile("edge_tpu").check(load_scheme(name))
    assert str(raised.value).endswith(
        "expected weights of 8 and activations of 8 bits; choose one of full_int8, full_int8_per_tensor"
    )


def test_profile_refuses_a_scheme_when_an_override_has_another_width() -> None:
    scheme = QuantizationScheme(name="mine", overrides=(("^last$", "int4_weights"),))
    with pytest.raises(ValueError, match="got weights of 4 or 8 bits and activations of 8, expected"):
        load_profile("edge_tpu").check(scheme)


@pytest.mark.parametrize(
    ("name", "io_dtype"),
    [("full_int8", "int8"), ("int4_weights", "int8"), ("int16x8", "int16"), ("float16", "float32")],
)
def test_io_dtype_has_the_width_of_the_activations_by_default(name: str, io_dtype: str) -> None:
    assert default_io_dtype(load_scheme(name)) == io_dtype
    require_io_dtype(io_dtype, load_scheme(name))


@pytest.mark.parametrize(
    ("scheme", "message"),
    [
        (None, "got 'int9', expected one of int8, uint8, int16, float32$"),
        ("int16x8", "expected one of int16 with scheme 'int16x8'"),
    ],
)
def test_require_io_dtype_raises_when_nothing_has_it(scheme: str | None, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        require_io_dtype("int9", load_scheme(scheme) if scheme else None)
