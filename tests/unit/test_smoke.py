"""The smoke test blesses what runs as it did when it was converted, and survives what does not."""

import faulthandler
import hashlib
import json
import os
import random
import shutil
import sys
import time
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import tensorflow as tf
from tensorflow.lite.python import schema_py_generated as schema

from components.evaluation import smoke_process
from components.evaluation.smoke import arena_bytes, smoke_test, smoke_tests
from components.evaluation.smoke_process import KernelRun, Limits, ModelRun
from components.evaluation.smoke_settings import Smoke
from components.evaluation.verdict import Verdict
from components.quantization import audit
from components.quantization.contract.device_files import write_device_files
from components.quantization.contract.golden import golden_vectors, npz_bytes, read_golden_vectors
from components.quantization.contract.schema import Contract
from components.quantization.conversion import flatbuffer
from infra import fuzz_audit

from contract_cases import contract_of, image_model, pixels, scaled

_SMOKE = Smoke(profile="cpu")


@pytest.fixture(scope="module")
def serving(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A directory as it is pushed."""
    directory = tmp_path_factory.mktemp("serving")
    built = contract_of(image_model(), scaled, {"pixels": pixels()})
    vectors = golden_vectors(image_model(), built.contract, built.inputs, built.sources)
    write_device_files(directory, image_model(), built.contract, vectors)
    return directory


@pytest.fixture
def copied(serving: Path, tmp_path: Path) -> Path:
    """A copy of it, to spoil."""
    return Path(shutil.copytree(serving, tmp_path / "serving"))


def _spoil(directory: Path, tflite: bytes) -> None:
    """Another file, of which the contract claims to be."""
    (directory / "tflite").write_bytes(tflite)
    contract = json.loads((directory / "io_contract.json").read_text())
    contract["tflite_sha256"] = hashlib.sha256(tflite).hexdigest()
    (directory / "io_contract.json").write_text(json.dumps(contract))


def _failed(verdict: Verdict) -> list[tuple[str, str]]:
    return [(reason.gate, reason.code) for reason in verdict.reasons if reason.refuses]


def _changed(change: Any) -> bytes:
    model = flatbuffer.read_object(image_model())
    change(model)
    return flatbuffer.write_object(model)


def test_smoke_test_blesses_a_model_and_says_what_was_measured(serving: Path) -> None:
    verdict = smoke_test(serving, Smoke(profile="cpu", file_bytes=10**6, arena_bytes=10**6, max_lsb=255))
    assert verdict.blessed, verdict.texts
    checks = ["file", "default kernels", "optimized kernels", "reference kernels", "arena"]
    assert [reason.gate for reason in verdict.reasons] == checks
    by_check = {reason.gate: reason for reason in verdict.reasons}
    assert (by_check["file"].got, by_check["file"].limit) == ((serving / "tflite").stat().st_size, 10**6)
    assert (by_check["reference kernels"].got, by_check["reference kernels"].limit) == (0, 0)
    assert "XNNPACK" in by_check["default kernels"].text
    assert len(verdict.texts) == len(checks)


def test_arena_holds_the_largest_op_and_no_more_than_all_tensors(serving: Path) -> None:
    graph = flatbuffer.read_subgraphs((serving / "tflite").read_bytes())[0]
    size = {t.index: int(np.prod(t.shape)) for t in graph.tensors if t.constant is None}  # of one byte each
    largest = max(sum(size.get(index, 0) for index in {*op.inputs, *op.outputs}) for op in graph.ops)
    # TFLite aligns tensors to 64 bytes; its kernels take scratch for columns of the image, 3 x 3 x 3 for each pixel.
    assert largest <= arena_bytes(serving) <= sum(size.values()) + 64 * len(graph.tensors) + 36 * 27 + 4096


@pytest.mark.extended
def test_smoke_test_refuses_what_is_over_budget(serving: Path) -> None:
    size, arena = (serving / "tflite").stat().st_size, arena_bytes(serving)
    verdict = smoke_test(serving, Smoke(profile="cpu", file_bytes=size - 1, arena_bytes=arena - 1))
    assert _failed(verdict) == [("file", "budget"), ("arena", "budget")]
    assert smoke_test(serving, Smoke(profile="cpu", file_bytes=size, arena_bytes=arena)).blessed


def _run_with(**changes: Any) -> ModelRun:
    one = {
        "kernels": "k",
        "repeats": True,
        "digest": "a",
        "steps": {"reference": {"y": 0.0}, "default": {"y": 2.0}},
        "noise": {"reference": {"y": 0.0}, "default": {"y": 0.1}},
    }
    return ModelRun(kernels={name: KernelRun(**{**one, **changes}) for name in ("default", "reference")}, arena_bytes=1)


@pytest.fixture
def as_it_should(monkeypatch: pytest.MonkeyPatch) -> None:
    """Every model that is run does as it should."""
    run = _run_with(steps={"reference": {"y": 0.0}, "default": {"y": 0.0}})
    monkeypatch.setattr("components.evaluation.smoke.run", lambda directories, limits: [run] * len(directories))


def _without_vectors(directory: Path) -> None:
    (directory / "golden_vectors.npz").unlink()


def _another_file(directory: Path) -> None:
    (directory / "tflite").write_bytes(_changed(lambda model: setattr(model, "description", b"another")))


def _no_json(directory: Path) -> None:
    (directory / "io_contract.json").write_text("{")


def _deep_json(directory: Path) -> None:
    (directory / "io_contract.json").write_text("[" * 100_000)


def _contract_without(side: str) -> Any:
    def spoil(directory: Path) -> None:
        contract = json.loads((directory / "io_contract.json").read_text())
        (directory / "io_contract.json").write_text(json.dumps({**contract, side: []}))

    return spoil


def _contract_of_nothing(directory: Path) -> None:
    (directory / "io_contract.json").write_text(json.dumps({"tflite_sha256": None, "outputs": [{}]}))


def _cut(directory: Path) -> None:
    _spoil(directory, image_model()[:1000])


def _nan_scale(directory: Path) -> None:
    def change(model: Any) -> None:
        model.subgraphs[0].tensors[0].quantization.scale = [float("nan")]

    _spoil(directory, _changed(change))


def _unknown_op(directory: Path) -> None:
    def change(model: Any) -> None:
        model.operatorCodes[0].builtinCode, model.operatorCodes[0].deprecatedBuiltinCode = 5000, 127

    _spoil(directory, _changed(change))


def _other_weights(directory: Path) -> None:
    def change(model: Any) -> None:
        largest = max((buffer for buffer in model.buffers if buffer.data is not None), key=lambda one: len(one.data))
        largest.data = np.roll(largest.data, 1)

    _spoil(directory, _changed(change))


def _contract_with(side: str, **changes: Any) -> Any:
    """A contract with one field of its first input or output changed."""

    def spoil(directory: Path) -> None:
        contract = json.loads((directory / "io_contract.json").read_text())
        contract[side][0] |= changes
        (directory / "io_contract.json").write_text(json.dumps(contract))

    return spoil


def _contract_of_two_outputs(directory: Path) -> None:
    contract = json.loads((directory / "io_contract.json").read_text())
    contract["outputs"] += contract["outputs"]
    (directory / "io_contract.json").write_text(json.dumps(contract))


def _other_preparation(directory: Path) -> None:
    contract = json.loads((directory / "io_contract.json").read_text())
    contract["inputs"][0]["preparation"]["shift"] += 1
    (directory / "io_contract.json").write_text(json.dumps(contract))


def _vectors_of(change: Any) -> Any:
    """Golden vectors of which some were changed."""

    def spoil(directory: Path) -> None:
        with np.load(directory / "golden_vectors.npz") as file:
            vectors = {name: file[name] for name in file.files}
        (directory / "golden_vectors.npz").write_bytes(npz_bytes(change(vectors)))

    return spoil


def _bytes_of_vectors(change: Any) -> Any:
    """Golden vectors of which the bytes were changed."""

    def spoil(directory: Path) -> None:
        path = directory / "golden_vectors.npz"
        path.write_bytes(change(path.read_bytes()))

    return spoil


def _flipped(content: bytes) -> bytes:
    return content[:100] + bytes([content[100] ^ 1]) + content[101:]


_UNUSABLE_VECTORS = [
    _bytes_of_vectors(lambda content: b"PK no zip"),
    _bytes_of_vectors(lambda content: b""),
    _bytes_of_vectors(lambda content: content[:-30]),
    _bytes_of_vectors(_flipped),
    _vectors_of(lambda vectors: {name: of for name, of in vectors.items() if name != "reference/scores"}),
    _vectors_of(lambda vectors: {name: of[:0] for name, of in vectors.items()}),
    _vectors_of(lambda vectors: {**vectors, "input/image": vectors["input/image"][:3]}),
    _vectors_of(lambda vectors: {**vectors, "input/image": vectors["input/image"].astype(np.float32)}),
]


@pytest.mark.parametrize(
    ("spoil", "code"),
    [
        (_without_vectors, "incomplete"),
        (_another_file, "incomplete"),
        (_no_json, "incomplete"),
        (_deep_json, "incomplete"),
        (_contract_without("inputs"), "incomplete"),
        (_contract_without("outputs"), "incomplete"),
        (_contract_of_nothing, "incomplete"),
        (_contract_with("inputs", scale=0.123), "signature"),
        (_contract_with("inputs", zero_point=7), "signature"),
        (_contract_with("outputs", scale=None), "signature"),
        (_contract_with("outputs", dtype="uint8"), "signature"),
        (_contract_with("inputs", shape=[1, 2, 2, 3]), "signature"),
        (_contract_with("outputs", position=1), "signature"),
        (_contract_of_two_outputs, "signature"),
        (_cut, "unreadable"),
        (_nan_scale, "audit"),
        (_unknown_op, "audit"),
        (_other_weights, "golden"),
        (_other_preparation, "signature"),
    ],
)
def test_smoke_test_refuses_what_was_spoilt(copied: Path, spoil: Any, code: str) -> None:
    spoil(copied)
    verdict = smoke_test(copied, _SMOKE)
    assert not verdict.blessed
    assert code in [code for _, code in _failed(verdict)]


def test_smoke_test_says_to_convert_again_when_golden_vectors_are_not_whole(serving: Path, tmp_path: Path) -> None:
    directories = [Path(shutil.copytree(serving, tmp_path / f"{n}")) for n in range(len(_UNUSABLE_VECTORS))]
    for directory, spoil in zip(directories, _UNUSABLE_VECTORS, strict=True):
        spoil(directory)
    for verdict in smoke_tests(directories, _SMOKE):
        assert ("files", "incomplete") in _failed(verdict)
        assert "run" not in [gate for gate, _ in _failed(verdict)]
        (text,) = [reason.text for reason in verdict.reasons if reason.code == "incomplete"]
        assert text.startswith("fails: files: golden_vectors.npz")
        assert text.endswith("; convert the model again")


def test_golden_vectors_are_refused_or_the_same_when_any_byte_is_flipped(serving: Path, tmp_path: Path) -> None:
    contract = Contract.from_json((serving / "io_contract.json").read_text())
    content = (serving / "golden_vectors.npz").read_bytes()
    whole = read_golden_vectors(serving / "golden_vectors.npz", contract)
    path, refused = tmp_path / "golden_vectors.npz", 0
    for place in range(0, len(content), 1 + len(content) // 500):
        path.write_bytes(content[:place] + bytes([content[place] ^ 0x41]) + content[place + 1 :])
        try:
            found = read_golden_vectors(path, contract)
        except ValueError:
            refused += 1
            continue
        assert all(np.array_equal(found[name], whole[name]) for name in whole if "source" not in name)
    assert refused > 250


@pytest.mark.parametrize(
    ("spoil", "code"),
    [
        (_without_vectors, "incomplete"),
        (_deep_json, "incomplete"),
        (_cut, "unreadable"),
        (_nan_scale, "audit"),
        (_unknown_op, "audit"),
    ],
)
@pytest.mark.usefixtures("as_it_should")
def test_smoke_test_refuses_what_is_pushed_when_it_is_not_what_runs(
    serving: Path, copied: Path, spoil: Any, code: str
) -> None:
    assert smoke_test(serving, _SMOKE, copied).texts[-1] == "holds: pushed file: the file that was run, byte by byte"
    spoil(copied)
    failed = _failed(smoke_test(serving, _SMOKE, copied))
    assert code in [code for _, code in failed]
    assert all(gate.startswith("pushed file") for gate, _ in failed)


def test_smoke_test_runs_what_is_pushed_when_it_is_another_file_without_a_compiled_op(
    serving: Path, copied: Path
) -> None:
    _other_weights(copied)
    with np.load(serving / "golden_vectors.npz") as vectors:
        np.savez(copied / "golden_vectors.npz", **{name: values[:4] for name, values in vectors.items()})
    verdict = smoke_test(serving, _SMOKE, copied)
    assert _failed(verdict) == [
        ("pushed file, default kernels", "kernels"),  # other weights give outputs as far off as those of other examples
        ("pushed file, optimized kernels", "kernels"),
        ("pushed file, reference kernels", "golden"),
        ("pushed file", "incomplete"),
    ]
    assert sum("times what golden outputs vary by, expected at most 1" in text for text in verdict.texts) == 2
    assert "pushed file, arena" in [reason.gate for reason in verdict.reasons]


def _compile(model: Any) -> None:
    code = next(code for code in model.operatorCodes if code.builtinCode == schema.BuiltinOperator.CONV_2D)
    code.builtinCode = code.deprecatedBuiltinCode = schema.BuiltinOperator.CUSTOM
    code.customCode, code.version = b"edgetpu-custom-op", 1
    for op in model.subgraphs[0].operators:
        if model.operatorCodes[op.opcodeIndex] is code:
            op.builtinOptions, op.builtinOptionsType, op.customOptions = None, 0, [1, 2, 3]


@pytest.mark.usefixtures("as_it_should")
def test_smoke_test_of_a_compiled_file_reads_it_and_says_that_it_was_not_run(serving: Path, copied: Path) -> None:
    compiled = _changed(_compile)
    _spoil(copied, compiled)
    verdict = smoke_test(serving, Smoke(profile="edge_tpu", file_bytes=10**5), copied)
    assert verdict.blessed, verdict.texts
    assert verdict.texts[-1].startswith("holds: pushed file: ")
    assert verdict.texts[-1].endswith("bytes; read, not run: no CPU runs a compiled op")
    small = Smoke(profile="edge_tpu", file_bytes=(serving / "tflite").stat().st_size)
    _spoil(copied, compiled + bytes(10**4))
    assert _failed(smoke_test(serving, small, copied)) == [("pushed file", "budget")]
    _spoil(copied, compiled)
    assert ("pushed file, audit", "audit") in _failed(smoke_test(serving, _SMOKE, copied))  # for a CPU


def _scale_of_the_input(model: Any) -> None:
    edge = model.subgraphs[0].tensors[model.subgraphs[0].inputs[0]]
    edge.quantization.scale = [2 * edge.quantization.scale[0]]


def _nan_scale_of_an_op(model: Any) -> None:
    output = model.subgraphs[0].operators[-1].outputs[0]
    model.subgraphs[0].tensors[output].quantization.scale = [float("nan")]


def _fewer_outputs(model: Any) -> None:
    model.subgraphs[0].outputs = []


@pytest.mark.usefixtures("as_it_should")
@pytest.mark.parametrize(
    ("change", "code"),
    [(_scale_of_the_input, "signature"), (_nan_scale_of_an_op, "audit"), (_fewer_outputs, "audit")],
)
def test_smoke_test_refuses_a_compiled_file_when_what_no_accelerator_hides_is_wrong(
    serving: Path, copied: Path, change: Any, code: str
) -> None:
    def both(model: Any) -> None:
        _compile(model)
        change(model)

    _spoil(copied, _changed(both))
    assert code in [code for _, code in _failed(smoke_test(serving, Smoke(profile="edge_tpu"), copied))]


@pytest.mark.usefixtures("as_it_should")
def test_smoke_test_refuses_a_compiled_file_when_contract_or_vectors_beside_it_are_others(
    serving: Path, copied: Path
) -> None:
    _spoil(copied, _changed(_compile))
    contract = json.loads((copied / "io_contract.json").read_text())
    contract["outputs"][0]["layout"] = "another"
    (copied / "io_contract.json").write_text(json.dumps(contract))
    np.savez(copied / "golden_vectors.npz", x=np.zeros(3))
    failed = _failed(smoke_test(serving, Smoke(profile="edge_tpu"), copied))
    assert failed == [("pushed file, files", "incomplete")] * 2


@pytest.mark.parametrize(
    ("runs", "failed"),
    [
        ((_run_with(), _run_with()), []),
        ((_run_with(repeats=False), _run_with()), ["nondeterministic"] * 2),
        ((_run_with(), _run_with(digest="b")), ["nondeterministic"] * 2),
        # The default kernels may equal either golden output, the reference kernels only their own.
        ((_run_with(steps={"reference": {"y": 3.0}, "default": {"y": 1.0}}),) * 2, ["golden"]),
        ((_run_with(steps={"reference": {"y": 3.0}, "default": {"y": 2.0}}),) * 2, ["kernels", "golden"]),
        # As far from both golden outputs as those vary.
        ((_run_with(noise={"reference": {"y": 1.0, "z": 0.0}, "default": {"y": 9.0, "z": 9.0}}),) * 2, []),
        ((_run_with(noise={"reference": {"y": 0.0, "z": 1.01}, "default": {"y": 1.02, "z": 0.0}}),) * 2, ["kernels"]),
        ((_run_with(), ModelRun(ended="was ended by SIGSEGV")), ["crashed"]),
        ((ModelRun(refused="no"), _run_with()), ["refused"]),
    ],
)
def test_smoke_test_judges_runs(
    serving: Path, monkeypatch: pytest.MonkeyPatch, runs: tuple[ModelRun, ...], failed: list[str]
) -> None:
    monkeypatch.setattr("components.evaluation.smoke.run", lambda directories, limits: list(runs))
    verdict = smoke_test(serving, Smoke(profile="cpu", max_lsb=1))
    assert [code for _, code in _failed(verdict)] == failed


def _with_other_default_outputs(directory: Path, change: Any) -> None:
    """Golden vectors as if other kernels than the reference ones had been used."""
    contract = Contract.from_json((directory / "io_contract.json").read_text())
    vectors = read_golden_vectors(directory / "golden_vectors.npz", contract)
    for name in [name for name in vectors if name.startswith("reference/")]:
        vectors[name.replace("reference", "default")] = change(vectors[name])
    (directory / "golden_vectors.npz").write_bytes(npz_bytes(vectors))


def test_noise_of_kernels_is_their_difference_as_a_share_of_what_golden_outputs_vary_by(copied: Path) -> None:
    _with_other_default_outputs(copied, lambda codes: np.clip(codes.astype(int) * 3 + 2, -128, 127).astype(codes.dtype))
    contract = Contract.from_json((copied / "io_contract.json").read_text())
    vectors = read_golden_vectors(copied / "golden_vectors.npz", contract)
    (run,) = smoke_process.run([copied], Limits())
    for name in (entry.name for entry in contract.outputs):
        right, other = (vectors[f"{kernels}/{name}"].astype(float) for kernels in ("reference", "default"))
        by_hand = np.sqrt(np.mean((right - other) ** 2)) / other.std()
        assert by_hand > 0.1
        assert run.kernels["reference"].noise["default"][name] == pytest.approx(by_hand, rel=1e-12)
        assert run.kernels["reference"].noise["reference"][name] == 0


@pytest.mark.extended
@pytest.mark.parametrize(("io_dtype", "least"), [("int8", 1.0), ("float32", 1 / 256)])
def test_noise_is_a_share_of_a_step_when_golden_outputs_hardly_vary(
    tmp_path: Path, io_dtype: str, least: float
) -> None:
    """Scores of a softmax have the scale 1/256, also if the file itself dequantizes them."""
    tflite = image_model(io_dtype)
    built = contract_of(tflite, scaled, {"pixels": pixels()})
    vectors = golden_vectors(tflite, built.contract, built.inputs, built.sources)
    write_device_files(tmp_path, tflite, built.contract, vectors)
    _with_other_default_outputs(tmp_path, lambda values: np.full_like(values, values.ravel()[0]))
    (run,) = smoke_process.run([tmp_path], Limits())
    right = vectors["reference/scores"].astype(float)
    by_hand = np.sqrt(np.mean((right - right.ravel()[0]) ** 2)) / least
    assert by_hand > 1
    assert run.kernels["reference"].noise["default"]["scores"] == pytest.approx(by_hand, rel=1e-6)


def _abort(directory: Path) -> dict[str, Any]:
    faulthandler.disable()  # pytest's, which would tell all of it
    os.abort()


def _exit(directory: Path) -> dict[str, Any]:
    os._exit(7)


def _never_end(directory: Path) -> dict[str, Any]:
    while True:
        time.sleep(0.1)


def _take_memory(directory: Path) -> dict[str, Any]:
    return {"arena_bytes": len(bytearray(2**40))}


@pytest.mark.parametrize(
    ("function", "seconds", "found"),
    [
        (_abort, 60, {"ended": "was ended by SIGABRT"}),
        (_exit, 60, {"ended": "ended with 7"}),
        (_never_end, 0.5, {"ended": "did not end within 0.5 s"}),
        (_take_memory, 60, {"refused": "MemoryError"}),
    ],
)
def test_whatever_ends_a_run_is_what_is_found(
    tmp_path: Path, function: Any, seconds: float, found: dict[str, Any]
) -> None:
    started = time.monotonic()
    assert smoke_process.forked(function, tmp_path, Limits(seconds=seconds), tmp_path) == found
    assert time.monotonic() - started < 60


def test_run_raises_when_the_process_that_forks_cannot_start(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sys, "executable", "/bin/false")
    with pytest.raises(RuntimeError, match="the process that runs models ended with 1"):
        smoke_process.run([tmp_path], Limits())


@pytest.mark.parametrize("wrong", [{"file_bytes": 0}, {"arena_bytes": -1}, {"max_lsb": -1}, {"max_lsb": float("nan")}])
def test_smoke_raises_when_nothing_can_keep_to_it(wrong: dict[str, int]) -> None:
    with pytest.raises(ValueError, match=next(iter(wrong))):
        Smoke(profile="cpu", **wrong)


def _constants_changed(random_: random.Random) -> bytes:
    def change(model: Any) -> None:
        constants = [buffer for buffer in model.buffers if buffer.data is not None and len(buffer.data) > 8]
        for _ in range(random_.randint(1, 4)):
            buffer = random_.choice(constants)
            buffer.data = np.array(buffer.data)
            buffer.data[random_.randrange(len(buffer.data))] ^= 1 << random_.randrange(8)

    return _changed(change)


def _bits_changed(random_: random.Random) -> bytes:
    content = bytearray(image_model())
    for _ in range(random_.randint(1, 3)):
        content[random_.randrange(len(content))] ^= 1 << random_.randrange(8)
    return bytes(content)


@pytest.mark.extended
def test_none_of_a_hundred_mutated_files_is_blessed_wrongly_and_none_takes_the_process_down(
    serving: Path, tmp_path: Path
) -> None:
    random_ = random.Random(1)
    made = [fuzz_audit.mutated(random_, [image_model()]) for _ in range(34)]
    made += [_bits_changed(random_) for _ in range(33)] + [_constants_changed(random_) for _ in range(33)]
    directories = [Path(shutil.copytree(serving, tmp_path / f"{number}")) for number in range(len(made))]
    for directory, content in zip(directories, made, strict=True):
        _spoil(directory, content)
    verdicts = smoke_tests(directories, Smoke(profile="cpu", limits=Limits(seconds=20)))
    assert len(verdicts) == 100
    blessed = [made for made, verdict in zip(made, verdicts, strict=True) if verdict.blessed]
    codes = {code for verdict in verdicts for _, code in _failed(verdict)}
    assert {"unreadable", "audit", "golden"} <= codes
    assert 5 < len(blessed) < 60  # some bits are of names, or of no example
    vectors = dict(np.load(serving / "golden_vectors.npz"))
    for content in blessed:
        assert not audit(content, "cpu").offenders
        interpreter = tf.lite.Interpreter(
            model_content=content, experimental_op_resolver_type=tf.lite.experimental.OpResolverType.BUILTIN_REF
        )
        interpreter.allocate_tensors()
        for image, expected in zip(vectors["input/image"], vectors["reference/scores"], strict=True):
            interpreter.set_tensor(interpreter.get_input_details()[0]["index"], image[None])
            interpreter.invoke()
            assert np.array_equal(interpreter.get_tensor(interpreter.get_output_details()[0]["index"])[0], expected)
