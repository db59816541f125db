"""The files beside a model: the contract as JSON, C and Python, which give the same integers bit by bit."""

import ast
import dataclasses
import itertools
import json
import re
import shutil
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from components.quantization import convert
from components.quantization.contract import arithmetic, selftest
from components.quantization.contract.build import Knowledge, build_contract
from components.quantization.contract.c_header import c_header, identifiers
from components.quantization.contract.device_files import python_snippet, write_device_files
from components.quantization.contract.golden import golden_vectors, npz_bytes, pipeline_inputs
from components.quantization.contract.schema import (
    SCHEMA_VERSION,
    Contract,
    Edge,
    Operation,
    Output,
    Preparation,
    Verification,
)

from contract_cases import (
    DEVIATION,
    MEAN,
    contract_of,
    gamma,
    image_model,
    imagenet,
    pixels,
    scaled,
    standardized,
    table,
    table_model,
    two_input_model,
)
from small_models import trained_with_fake_quantization

_IMAGENET_LOW, _IMAGENET_HIGH = float((-MEAN / DEVIATION).min()), float(((1 - MEAN) / DEVIATION).max())
_FLAGS = ["-Wall", "-Wextra", "-Werror", "-pedantic", "-O2"]


def _identity():
    return image_model("uint8"), contract_of(image_model("uint8"), scaled, {"pixels": pixels()})


def _flipped():
    return image_model(), contract_of(image_model(), scaled, {"pixels": pixels()})


def _affine():
    tflite = image_model(low=_IMAGENET_LOW, high=_IMAGENET_HIGH)
    return tflite, contract_of(tflite, imagenet, {"pixels": pixels()})


def _lookup():
    return image_model(), contract_of(image_model(), gamma, {"pixels": pixels()})


def _steps():
    built = contract_of(table_model(), standardized, {"table": table()}, examples=False)
    sources = {"columns": table()}
    return table_model(), dataclasses.replace(built, sources=sources, inputs=built.contract.quantize_raw(sources))


def _two_inputs():
    raw = {"columns": table(8), "word": np.arange(8, dtype=np.int32)[:, None] % 5}
    return two_input_model(), build_contract(two_input_model(), Knowledge(raw_examples=raw))


_CASES = {
    "identity": _identity,
    "identity-of-int8": _flipped,
    "affine": _affine,
    "lookup": _lookup,
    "steps": _steps,
    "two-inputs": _two_inputs,
}


@pytest.fixture(scope="module", params=_CASES)
def case(request, tmp_path_factory):
    """A model, its contract, its golden vectors, and the directory with all files."""
    tflite, built = _CASES[request.param]()
    assert built.contract.inputs[0].preparation.kind in (request.param.split("-")[0], "affine")
    vectors = golden_vectors(tflite, built.contract, built.inputs, built.sources)
    directory = tmp_path_factory.mktemp("serving")
    write_device_files(directory, tflite, built.contract, vectors)
    return built.contract, vectors, directory


def test_from_json_reads_what_to_json_wrote(case):
    contract, _, directory = case

    text = (directory / "io_contract.json").read_text()
    assert Contract.from_json(text) == contract
    assert Contract.from_json(text).to_json() == text
    assert list(json.loads(text)) == sorted(json.loads(text))


def test_dequantize_gives_the_outputs_of_the_pipelines_interpreter(case):
    contract, vectors, _ = case

    outputs = {entry.name: vectors[f"default/{entry.name}"] for entry in contract.outputs}
    for entry in contract.outputs:
        steps = outputs[entry.name].astype(np.float32) - np.float32(entry.zero_point)
        np.testing.assert_array_equal(contract.dequantize(outputs)[entry.name], steps * np.float32(entry.scale))


def test_snippet_gives_the_golden_inputs_when_it_runs_without_this_package(case, tmp_path):
    contract, vectors, directory = case
    shutil.copy(directory / "io_contract.py", tmp_path)
    np.savez(tmp_path / "sources.npz", **{entry.name: vectors[f"source/{entry.name}"] for entry in contract.inputs})
    script = (
        "import io_contract, numpy, sys\n"
        "assert not any(name.startswith(('components', 'tensorflow')) for name in sys.modules)\n"
        "made = io_contract.quantize_inputs(dict(numpy.load('sources.npz')))\n"
        "numpy.savez('made.npz', **made)\n"
    )

    subprocess.run([sys.executable, "-c", script], cwd=tmp_path, check=True)

    made = np.load(tmp_path / "made.npz")
    for entry in contract.inputs:
        assert made[entry.name].dtype == entry.dtype
        np.testing.assert_array_equal(made[entry.name], vectors[f"input/{entry.name}"])


@pytest.mark.parametrize("compiler", ["gcc -std=c99", "gcc -std=gnu17 -O3 -march=native", "g++ -std=c++11"])
def test_header_gives_the_golden_inputs_and_real_outputs_when_compiled(case, tmp_path, compiler):
    contract, vectors, directory = case
    command = compiler.split()
    if shutil.which(command[0]) is None:
        pytest.skip(f"{command[0]} is not installed")
    suffix = "cc" if command[0] == "g++" else "c"
    (tmp_path / f"main.{suffix}").write_text(_program(contract))
    subprocess.run(
        [*command, *_FLAGS, f"-I{directory}", f"main.{suffix}", "-o", "main", "-lm"], cwd=tmp_path, check=True
    )
    examples = len(vectors[f"input/{contract.inputs[0].name}"])
    given = b"".join(
        np.ascontiguousarray(vectors[key][row]).tobytes()
        for row in range(examples)
        for key in (
            *(f"source/{entry.name}" for entry in contract.inputs),
            *(f"default/{entry.name}" for entry in contract.outputs),
        )
    )

    made = subprocess.run([str(tmp_path / "main")], input=given, capture_output=True, check=True).stdout

    real = contract.dequantize({entry.name: vectors[f"default/{entry.name}"] for entry in contract.outputs})
    expected = b"".join(
        np.ascontiguousarray(value[row]).tobytes()
        for row in range(examples)
        for value in (
            *(vectors[f"input/{entry.name}"] for entry in contract.inputs),
            *(real[entry.name] for entry in contract.outputs),
        )
    )
    assert made == expected


_C = {"int8": "int8_t", "uint8": "uint8_t", "int32": "int32_t", "float32": "float"}


def _program(contract):
    """Reads sources and integers, writes integers and real values, example by example."""
    lines = ['#include "io_contract.h"', "#include <stdio.h>", "int main(void) {"]
    body = []
    for entry in contract.inputs:
        size, way = f"IO_CONTRACT_{entry.name.upper()}_SIZE", entry.preparation
        lines += [
            f"  static {_C[way.source_dtype]} s_{entry.name}[{size}];",
            f"  static {_C[entry.dtype]} q_{entry.name}[{size}];",
        ]
        body.append(
            (
                f"s_{entry.name}",
                f"io_contract_quantize_{entry.name}(s_{entry.name}, q_{entry.name});",
                f"q_{entry.name}",
            )
        )
    for entry in contract.outputs:
        size = f"IO_CONTRACT_{entry.name.upper()}_SIZE"
        lines += [f"  static {_C[entry.dtype]} q_{entry.name}[{size}];", f"  static float r_{entry.name}[{size}];"]
        body.append(
            (
                f"q_{entry.name}",
                f"io_contract_dequantize_{entry.name}(q_{entry.name}, r_{entry.name});",
                f"r_{entry.name}",
            )
        )
    lines.append("  for (;;) {")
    lines += [f"    if (fread({name}, sizeof {name}, 1, stdin) != 1) return 0;" for name, _, _ in body]
    lines += [f"    {call}" for _, call, _ in body]
    lines += [f"    fwrite({name}, sizeof {name}, 1, stdout);" for _, _, name in body]
    return "\n".join([*lines, "  }", "}", ""])


def test_header_rounds_halves_to_even_and_clips_when_values_are_extreme(tmp_path):
    contract = build_contract(table_model()).contract
    (tmp_path / "io_contract.h").write_text(c_header(contract))
    values = [
        0.5,
        1.5,
        2.5,
        -0.5,
        -1.5,
        -2.5,
        0.49999997,
        -0.49999997,
        8388609.0,
        1e30,
        -1e30,
        "INFINITY",
        "-INFINITY",
        "NAN",
    ]
    calls = "\n".join(
        f'  printf("%d\\n", (int)io_contract_round({value}{"" if isinstance(value, str) else "f"}, 3, -128, 127));'
        for value in values
    )
    includes = "".join(f"#include {name}\n" for name in ('"io_contract.h"', "<fenv.h>", "<stdio.h>"))
    (tmp_path / "main.c").write_text(
        f"{includes}int main(void) {{\n  fesetround(FE_UPWARD);\n{calls}\n  return 0;\n}}\n"
    )
    if shutil.which("gcc") is None:
        pytest.skip("gcc is not installed")
    subprocess.run(
        ["gcc", "-std=c99", *_FLAGS, "-frounding-math", "main.c", "-o", "main", "-lm"], cwd=tmp_path, check=True
    )

    made = subprocess.run([str(tmp_path / "main")], capture_output=True, check=True, text=True).stdout.split()

    # Plus the zero point, 3.
    assert [int(value) for value in made] == [3, 5, 5, 3, 1, 1, 3, 3, 127, 127, -128, 127, -128, -128]


def test_header_rounds_product_and_sum_when_the_compiler_may_fuse_them(tmp_path):
    """For one in some thousands of values a fused multiply-add gives another integer."""
    if shutil.which("gcc") is None:
        pytest.skip("gcc is not installed")
    multiplier, offset = np.float32(1.7), np.float32(-11.3)
    contract = build_contract(table_model()).contract
    entry = contract.inputs[0]
    way = dataclasses.replace(entry.preparation, multiplier=(float(multiplier),), offset=(float(offset),))
    contract = dataclasses.replace(contract, inputs=(dataclasses.replace(entry, preparation=way),))
    halves = (np.arange(-60, 60, dtype=np.float64) + 0.5 - float(offset)) / float(multiplier)
    near = np.float32(halves)[:, None]
    values = (near + np.arange(-4, 5, dtype=np.float32) * np.spacing(near)).reshape(-1, 3)
    expected = contract.quantize_raw({"columns": values})["columns"]
    fused = np.rint(np.float32(values.astype(np.float64) * multiplier + np.float64(offset))) + entry.zero_point
    assert (fused != expected).any()
    (tmp_path / "io_contract.h").write_text(c_header(contract))
    (tmp_path / "main.c").write_text(_program(dataclasses.replace(contract, outputs=())))
    command = ["gcc", "-std=gnu17", *_FLAGS, "-O3", "-march=native", "main.c", "-o", "main", "-lm"]
    subprocess.run(command, cwd=tmp_path, check=True)

    made = subprocess.run([str(tmp_path / "main")], input=values.tobytes(), capture_output=True, check=True).stdout

    assert made == expected.tobytes()


def test_header_escapes_names_and_labels():
    contract = build_contract(table_model(), Knowledge(labels={"scores": ['a"b\\c??/', "naïve*/"]})).contract
    named = dataclasses.replace(contract.outputs[0], name="a/b*/c")

    header = c_header(dataclasses.replace(contract, outputs=(named,)))

    assert '"a\\"b' not in header  # octal instead, which no trigraph nor quote ends
    assert '"a\\042b\\134c\\077\\077/"' in header
    assert '"na\\303\\257ve*/"' in header
    assert "IO_CONTRACT_A_B__C_SIZE 2" in header
    assert header.count("/*") == len(re.findall(r"\*/", header.replace('ve*/"', "")))


def test_identifiers_are_different_when_names_differ_in_case_or_end_as_a_number_that_was_added():
    assert identifiers(["Image", "image", "IMAGE"]) == ("Image", "image_1", "IMAGE_2")
    assert identifiers(["a_2", "a", "a"]) == ("a_2", "a", "a_2_2")


def test_header_compiles_when_names_differ_in_case_alone(tmp_path):
    if shutil.which("gcc") is None:
        pytest.skip("gcc is not installed")
    contract = build_contract(two_input_model()).contract
    named = (dataclasses.replace(entry, name=name) for entry, name in zip(contract.inputs, ("X", "x"), strict=True))
    (tmp_path / "io_contract.h").write_text(c_header(dataclasses.replace(contract, inputs=tuple(named))))
    (tmp_path / "main.c").write_text(
        '#include "io_contract.h"\nint main(void) { return IO_CONTRACT_X_1_POSITION - 1; }\n'
    )

    subprocess.run(["gcc", "-std=c99", *_FLAGS, "main.c", "-o", "main", "-lm"], cwd=tmp_path, check=True)

    assert subprocess.run([str(tmp_path / "main")]).returncode == 0


def test_contract_has_each_name_when_two_outputs_are_one_tensor():
    import tf_keras

    columns = tf_keras.Input((3,), name="columns")
    scores = tf_keras.layers.Dense(2, name="scores")(columns)
    model = tf_keras.Model(columns, {"one": scores, "two": scores})

    contract = build_contract(convert(model, representative_dataset=[table(8)])).contract

    assert [(entry.name, entry.position) for entry in contract.outputs] == [("scores", 0), ("scores_1", 1)]


def test_labels_are_those_of_the_last_axis():
    contract = build_contract(table_model(), Knowledge(labels={"scores": ["no", "yes"]})).contract

    assert contract.outputs[0].labels == ("no", "yes")
    with pytest.raises(ValueError, match="got 1 labels, expected 2"):
        build_contract(table_model(), Knowledge(labels={"scores": ["no"]}))
    with pytest.raises(ValueError, match="got some for other, expected outputs out of scores"):
        build_contract(table_model(), Knowledge(labels={"other": ["no", "yes"]}))


def test_edges_have_names_ranges_and_layouts_when_there_are_several():
    contract = build_contract(two_input_model()).contract

    inputs = {entry.name: entry for entry in contract.inputs}
    assert sorted(entry.position for entry in contract.inputs) == [0, 1]
    columns, word = inputs["columns"], inputs["word"]
    assert (columns.layout, word.layout) == ("NC", "?")
    assert (word.scale, word.real_min, word.real_max) == (None, None, None)
    assert columns.real_min == np.float32(columns.scale) * np.float32(-128 - columns.zero_point)
    assert columns.real_max == np.float32(columns.scale) * np.float32(127 - columns.zero_point)
    assert {entry.name: entry.shape for entry in contract.outputs} == {"scores": (1, 3), "size": (1, 1)}
    assert build_contract(image_model()).contract.inputs[0].layout == "NHWC"


def test_layout_is_nwc_when_a_convolution_reads_a_sequence():
    import tf_keras

    layers = tf_keras.layers
    model = tf_keras.Sequential(
        [layers.InputLayer((16, 2), name="signal"), layers.Conv1D(3, 3, name="conv"), layers.ReLU(name="relu")]
    )
    calibration = np.linspace(-1, 1, 160, dtype=np.float32).reshape(5, 16, 2)

    contract = build_contract(convert(model, representative_dataset=[calibration], profile="cpu")).contract

    assert (contract.inputs[0].layout, contract.outputs[0].layout) == ("NWC", "NWC")


@pytest.mark.parametrize(("scheme", "dtype"), [("int16x8", "int16"), ("float16", "float32")])
def test_contract_fits_models_of_other_types(scheme, dtype):
    import tf_keras

    model = tf_keras.Sequential(
        [tf_keras.layers.InputLayer((3,), name="columns"), tf_keras.layers.Dense(2, name="scores")]
    )
    tflite = convert(model, scheme, representative_dataset=[table(8)], profile="cpu")
    raw = {"table": table(8)}

    built = contract_of(tflite, standardized, raw)

    entry = built.contract.inputs[0]
    assert entry.dtype == dtype
    if dtype == "float32":
        assert (entry.scale, entry.preparation.kind) == (None, "steps")
    made = built.contract.quantize_raw(built.sources)
    assert made["columns"].dtype == dtype
    np.testing.assert_array_equal(made["columns"], built.inputs["columns"])
    vectors = golden_vectors(tflite, built.contract, made)
    assert vectors["default/scores"].dtype == built.contract.outputs[0].dtype
    c_header(built.contract)


def test_contract_of_a_trained_model_is_that_of_its_file():
    tflite = convert(trained_with_fake_quantization())

    contract = build_contract(tflite).contract

    assert [entry.name for entry in contract.inputs] == ["image"]
    assert contract.outputs[0].scale == 1 / 256  # softmax, by the specification
    assert contract.outputs[0].zero_point == -128


def test_quantize_raw_takes_sources_by_the_names_of_raw_features():
    _, built = _flipped()

    by_feature = built.contract.quantize_raw({"pixels": pixels()})
    by_input = built.contract.quantize_raw({"image": pixels()})

    np.testing.assert_array_equal(by_feature["image"], by_input["image"])
    with pytest.raises(ValueError, match=r"no value for image \(of pixels\); got other"):
        built.contract.quantize_raw({"other": pixels()})
    with pytest.raises(ValueError, match="expected"):
        built.contract.quantize_raw({"image": pixels()[:, :4]})
    with pytest.raises(ValueError, match="not numbers"):
        build_contract(table_model()).contract.quantize_raw({"columns": np.full((1, 3), np.nan, np.float32)})


def test_from_json_says_what_is_wrong_when_it_is_no_contract():
    text = build_contract(table_model()).contract.to_json()
    fields = json.loads(text)

    with pytest.raises(ValueError, match="not a JSON object with schema_version"):
        Contract.from_json("[]")
    with pytest.raises(ValueError, match=f"got schema_version 99, expected {SCHEMA_VERSION}"):
        Contract.from_json(json.dumps({**fields, "schema_version": 99}))
    with pytest.raises(ValueError, match="missing, unknown or of a wrong type.*colour"):
        Contract.from_json(json.dumps({**fields, "colour": 1}))
    del fields["inputs"][0]["scale"]
    with pytest.raises(ValueError, match="missing, unknown or of a wrong type.*scale"):
        Contract.from_json(json.dumps(fields))


def test_records_refuse_what_they_cannot_be():
    verified = Verification(method="examples", count=1, mismatches=0)
    with pytest.raises(ValueError, match="got kind 'guess'"):
        Preparation(
            source="x", source_dtype="uint8", source_shape=(1,), raw_features=("x",), kind="guess", verified=verified
        )
    with pytest.raises(ValueError, match="with 3 mismatches"):
        Verification(method="examples", count=1, mismatches=3)
    with pytest.raises(ValueError, match="got 'power'"):
        Operation(op="power", values=(1.0,))
    assert issubclass(Output, Edge)


def test_golden_vectors_are_the_same_bytes_when_made_twice():
    tflite, built = _flipped()

    first, second = (npz_bytes(golden_vectors(tflite, built.contract, built.inputs, built.sources)) for _ in range(2))

    assert first == second
    with pytest.raises(ValueError, match="Object arrays"):
        npz_bytes({"a": np.array([b"x", None], object)})


def test_pipeline_inputs_are_those_of_the_contract_when_features_are_preprocessed():
    _, built = _flipped()

    made = pipeline_inputs(built.contract, {"image": pixels().astype(np.float32) / np.float32(255)})

    np.testing.assert_array_equal(made["image"], built.inputs["image"])


def test_write_device_files_leaves_out_the_self_test_when_there_are_no_vectors(tmp_path):
    tflite, built = _flipped()

    paths = write_device_files(tmp_path, tflite, built.contract)

    assert {path.name for path in paths} == {"tflite", "io_contract.json", "io_contract.h", "io_contract.py"}
    with pytest.raises(ValueError, match="build it of the bytes that are written"):
        write_device_files(tmp_path, tflite + b"\0", built.contract)


@pytest.mark.parametrize("module", [arithmetic, selftest])
def test_device_code_is_of_python_3_8(module):
    ast.parse(Path(module.__file__).read_text(), feature_version=(3, 8))


def test_snippet_is_of_python_3_8_and_carries_the_contract():
    contract = build_contract(table_model(), Knowledge(labels={"scores": ['quote"s', "back\\slash"]})).contract

    source = python_snippet(contract)

    ast.parse(source, feature_version=(3, 8))
    names = {"__name__": "io_contract"}
    exec(compile(source, "io_contract.py", "exec", flags=0, dont_inherit=True), names)
    assert names["CONTRACT"]["outputs"][0]["labels"] == ['quote"s', "back\\slash"]
    assert list(itertools.chain(*(entry["shape"] for entry in names["CONTRACT"]["inputs"]))) == [1, 3]
