"""The self-test on the device finds a wrong file, a wrong contract and wrong kernels, and says which."""

import dataclasses
import json
import shutil
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from components.quantization.contract import schema, selftest
from components.quantization.contract.build import Knowledge, build_contract
from components.quantization.contract.device_files import write_device_files
from components.quantization.contract.golden import golden_vectors

from contract_cases import contract_of, image_model, pixels, scaled, table, two_input_model


@pytest.fixture(scope="module")
def serving(tmp_path_factory):
    """A directory as it is pushed."""
    directory = tmp_path_factory.mktemp("serving")
    built = contract_of(image_model(), scaled, {"pixels": pixels()})
    vectors = golden_vectors(image_model(), built.contract, built.inputs, built.sources)
    write_device_files(directory, image_model(), built.contract, vectors)
    return directory


@pytest.fixture
def copied(serving, tmp_path):
    """A copy of it, to spoil."""
    return Path(shutil.copytree(serving, tmp_path / "serving"))


def _failed(found):
    return [check.name for check in found.checks if not check.passed]


def _change_vectors(directory, change):
    with np.load(directory / "golden_vectors.npz") as file:
        vectors = {key: file[key].copy() for key in file.files}
    change(vectors)
    np.savez(directory / "golden_vectors.npz", **vectors)


def _change_contract(directory, change):
    path = directory / "io_contract.json"
    contract = json.loads(path.read_text())
    change(contract)
    path.write_text(json.dumps(contract))


def test_selftest_passes_when_nothing_was_changed(serving):
    found = selftest.selftest(serving)

    assert found.passed, found
    assert found.interpreter in selftest.INTERPRETERS
    assert "16 examples" in str(found)
    assert str(found).splitlines()[-1].startswith("self-test passed with ")


def test_selftest_passes_when_there_are_several_inputs_and_outputs(tmp_path):
    raw = {"columns": table(8), "word": np.arange(8, dtype=np.int32)[:, None] % 5}
    built = build_contract(two_input_model(), Knowledge(raw_examples=raw))
    vectors = golden_vectors(two_input_model(), built.contract, built.inputs, built.sources)
    write_device_files(tmp_path, two_input_model(), built.contract, vectors)

    found = selftest.selftest(tmp_path)

    assert found.passed, found
    assert {"golden scores", "golden size", "prepare columns", "prepare word"} <= {c.name for c in found.checks}


def test_selftest_stops_at_the_hash_when_the_model_is_corrupt(copied):
    content = bytearray((copied / "tflite").read_bytes())
    content[len(content) // 2] ^= 0xFF
    (copied / "tflite").write_bytes(content)

    found = selftest.selftest(copied)

    assert _failed(found) == ["sha256"]
    assert found.interpreter == ""
    assert "no interpreter" in str(found)


def test_selftest_fails_at_the_hash_when_the_file_is_of_another_model(copied):
    (copied / "tflite").write_bytes(image_model("uint8"))

    assert _failed(selftest.selftest(copied)) == ["sha256"]


def test_selftest_says_both_scales_when_the_contract_has_another(copied):
    _change_contract(copied, lambda contract: contract["inputs"][0].update(scale=0.5))

    found = selftest.selftest(copied)

    assert _failed(found) == ["input image"]
    assert "scale: the model has 0.0039" in str(found)
    assert "the contract 0.5" in str(found)


def test_selftest_fails_when_the_preparation_gives_other_integers(copied):
    _change_contract(copied, lambda contract: contract["inputs"][0]["preparation"].update(shift=-127))

    assert _failed(selftest.selftest(copied)) == ["prepare image"]


def test_selftest_reports_the_difference_when_outputs_are_others(copied):
    def change(vectors):
        for kernels in ("reference", "default"):
            vectors[f"{kernels}/scores"] = np.clip(vectors[f"{kernels}/scores"].astype(int) - 2, -128, 127).astype(
                np.int8
            )

    _change_vectors(copied, change)

    found = selftest.selftest(copied)

    assert _failed(found) == ["golden scores"]
    assert "at most 2 steps from the reference kernels" in str(found)
    assert selftest.selftest(copied, max_lsb=2).passed


def test_selftest_passes_when_outputs_are_those_of_one_kernel_set_alone(copied):
    def change(vectors):
        vectors["reference/scores"] = np.roll(vectors["reference/scores"], 1, axis=1)

    _change_vectors(copied, change)

    assert selftest.selftest(copied).passed


def test_selftest_fails_when_outputs_are_partly_those_of_either_kernel_set(copied):
    """One set must fit all outputs: half and half are the kernels of no device."""

    def change(vectors):
        for kernels, rows in (("reference", slice(0, 8)), ("default", slice(8, 16))):
            vectors[f"{kernels}/scores"][rows] = np.roll(vectors[f"{kernels}/scores"][rows], 1, axis=1)

    _change_vectors(copied, change)

    assert _failed(selftest.selftest(copied)) == ["golden scores"]


def test_selftest_lists_files_when_some_are_missing(tmp_path):
    found = selftest.selftest(tmp_path)

    assert _failed(found) == ["files"]
    assert "missing: tflite, io_contract.json, golden_vectors.npz" in str(found)


def test_selftest_fails_when_vectors_or_versions_are_not_as_expected(copied):
    def drop(vectors):
        del vectors["default/scores"]

    _change_vectors(copied, drop)
    assert "lack default/scores" in str(selftest.selftest(copied))

    _change_contract(copied, lambda contract: contract.update(schema_version=99))
    assert "schema_version 99, expected 1" in str(selftest.selftest(copied))

    (copied / "io_contract.json").write_text("{")
    assert _failed(selftest.selftest(copied)) == ["contract"]


def test_selftest_names_what_it_tried_when_there_is_no_such_interpreter(serving):
    with pytest.raises(ValueError, match=r"tried no_such_module \(No module named"):
        selftest.selftest(serving, interpreter="no_such_module")
    with pytest.raises(ValueError, match=r"tried json \(has no Interpreter\)"):
        selftest.selftest(serving, interpreter="json")


def test_selftest_measures_floats_in_their_own_steps():
    expected = np.float32([1.0, -2.0])

    assert selftest.steps_apart(np.float32([1.0, np.nextafter(np.float32(-2), np.float32(-3))]), expected) == 1.0
    assert selftest.steps_apart(np.float32([np.nan, -2.0]), expected) == float("inf")
    assert selftest.steps_apart(np.int8([1, 2]), np.uint8([1, 2])) == float("inf")


def test_selftest_and_schema_are_of_one_version():
    assert selftest._SCHEMA_VERSION == schema.SCHEMA_VERSION
    assert dataclasses.is_dataclass(selftest.SelfTest)


@pytest.mark.extended
def test_selftest_script_runs_when_this_package_is_not_there(copied, tmp_path):
    """As on a device: with an interpreter that has the usual interface, from another directory."""
    hide = "import runpy, sys; sys.modules['components'] = None; sys.argv = sys.argv[1:]; "
    run = f"sys.path.insert(0, {str(copied)!r}); runpy.run_path(sys.argv[0], run_name='__main__')"
    command = [sys.executable, "-c", hide + run, str(copied / "selftest.py")]

    good = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True)
    _change_contract(copied, lambda contract: contract["outputs"][0].update(zero_point=0))
    bad = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True)

    assert (good.returncode, bad.returncode) == (0, 1), good.stderr + bad.stderr
    assert "self-test passed" in good.stdout
    assert "zero_point: the model has -128, the contract 0" in bad.stdout


@pytest.mark.parametrize("spoil", [lambda content: content[:-40], lambda content: b"", lambda content: b"PK" + content])
def test_selftest_fails_at_the_golden_vectors_when_their_file_is_broken(copied, spoil):
    path = copied / "golden_vectors.npz"
    path.write_bytes(spoil(path.read_bytes()))

    assert _failed(selftest.selftest(copied)) == ["golden vectors"]


def test_selftest_fails_when_golden_vectors_do_not_fit_the_model(copied):
    def crop(vectors):
        vectors["input/image"] = vectors["input/image"][:, :4]

    _change_vectors(copied, crop)

    assert _failed(selftest.selftest(copied))[-1] == "run"


@pytest.mark.parametrize(("field", "check"), [("tflite_sha256", "contract"), ("outputs", "run")])
def test_selftest_fails_when_a_field_of_the_contract_is_missing(copied, field, check):
    _change_contract(copied, lambda contract: contract.pop(field))

    found = selftest.selftest(copied)

    assert _failed(found) == [check]
    assert field in str(found)
