"""What a user relies on: the digits pipeline from TFRecords to a pushed integer model, on both local runners."""

import hashlib
import json
import re
import shlex
import shutil
import subprocess
import sys
import time
from pathlib import Path

import jsonschema
import numpy as np
import pytest
import tensorflow as tf
from tensorflow.lite.python import schema_py_generated as schema

from components.quantization.contract.file_metadata import read_metadata, without_metadata
from pipelines.configs import load_config
from pipelines.lineage.story import lineage_schema
from pipelines.metadata import MetadataStore
from pipelines.summary import RunSummary, summarize

from conftest_e2e import MODELS, Run, command, documents_of_report, local_properties, run_digits, stable

pytestmark = pytest.mark.slow
_COMPONENTS = [
    "ImportExampleGen",
    "StatisticsGen",
    "SchemaGen",
    "ExampleValidator",
    "Transform",
    "QuantizeTrainer",
    "TFLiteIntConverter",
    "EdgeTPUCompiler",
    "EdgeInfraValidator",
    "QuantizedEvaluator",
    "Pusher",
]


def _summary(run: Run) -> RunSummary:
    return summarize(MetadataStore(str(run.root / "metadata.sqlite")), load_config("digits"))


def test_local_run_is_accurate_small_blessed_and_pushed(local_run: Run) -> None:
    assert local_run.status == 0, local_run.output
    summary = _summary(local_run)
    assert summary.int8_accuracy >= 0.97
    assert summary.float_accuracy - summary.int8_accuracy <= 0.01
    assert summary.agreement >= 0.97
    variables = next((local_run.root / "artifacts/QuantizeTrainer/float_model").rglob("variables.data-*"))
    assert summary.float_bytes == variables.stat().st_size
    assert [summary.int8_bytes] == [path.stat().st_size for path in local_run.pushed]
    assert summary.int8_bytes / summary.float_bytes <= 0.35
    assert summary.blessed
    assert summary.pushed_to == str(local_run.pushed[0])
    assert not summary.compiled


def test_local_run_shows_progress_and_the_result(local_run: Run) -> None:
    shown = [line.split()[1] for line in local_run.output.splitlines() if line.startswith("done ")]
    assert shown == _COMPONENTS
    table = (
        "float accuracy|QAT accuracy|int8 accuracy|agreement|model bytes|ops on edge_tpu/CPU|blessed|pushed to|lineage"
    )
    for row in table.split("|"):
        assert row in local_run.output
    assert "not compiled" in local_run.output
    assert "Nothing came from TFX's cache" in local_run.output


def test_report_lies_beside_the_model_and_has_the_numbers_of_the_artifacts(local_run: Run) -> None:
    beside = local_run.pushed[0].parent / "report.html"
    page = beside.read_text(encoding="utf-8")
    (made,) = local_run.root.glob("artifacts/QuantizedEvaluator/blessing/*/report.json")
    assert (made.parent / "report.html").read_text(encoding="utf-8") == page
    assert beside.stat().st_size < 2_000_000
    held = documents_of_report(local_run.root, page)
    assert {loop: len(history["val_loss"]) for loop, history in held["histories"].items()} == {"float": 15, "qat": 5}
    overall = {one["model"]: one for one in held["paired"]["paired"] if one["slice"] == []}
    summary = _summary(local_run)
    assert overall["float"]["accuracy"]["value"] == pytest.approx(summary.int8_accuracy, abs=1e-6)
    assert overall["float"]["other_accuracy"]["value"] == pytest.approx(summary.float_accuracy, abs=1e-6)
    trained = overall["fake_quant"]["other_accuracy"]
    assert trained["value"] == pytest.approx(summary.qat_accuracy, abs=1e-6)
    assert trained["low"] < trained["value"] < trained["high"]
    assert f"{held['measurements']['facts']['latency_ms']:.3g}" in page
    assert "the evaluator&#39;s machine, measured" in page


def test_report_command_makes_the_page_anew_and_says_where_the_model_is(local_run: Run) -> None:
    asked = command("report", "digits", "--root", str(local_run.root), "--no-open")
    shown = subprocess.run(asked, capture_output=True, text=True, check=False)
    assert shown.returncode == 0, shown.stderr
    page = (local_run.root / "report.html").read_text(encoding="utf-8")
    assert shown.stdout.split() == [str(local_run.root / "report.html")]
    assert f"Pushed to <code>{local_run.pushed[0].parent}</code>" in page


def test_pushed_file_computes_no_float_tensor(local_run: Run) -> None:
    """Parses the file on its own, without the project's audit."""
    content = local_run.pushed[0].read_bytes()
    model = schema.ModelT.InitFromObj(schema.Model.GetRootAs(content, 0))
    floats = {value for name, value in vars(schema.TensorType).items() if "FLOAT" in name}
    assert len(floats) >= 3
    forbidden = {getattr(schema.BuiltinOperator, name) for name in ("DEQUANTIZE", "CUSTOM", "FAKE_QUANT")}
    assert not [t.name for graph in model.subgraphs for t in graph.tensors if t.type in floats]
    codes = [model.operatorCodes[op.opcodeIndex].builtinCode for graph in model.subgraphs for op in graph.operators]
    assert len(codes) == 7
    assert not forbidden & set(codes)


def test_pushed_file_recognizes_digits_without_the_project(local_run: Run) -> None:
    from sklearn.datasets import load_digits

    images, labels = load_digits(return_X_y=True)
    interpreter = tf.lite.Interpreter(model_path=str(local_run.pushed[0]))
    interpreter.allocate_tensors()
    given, returned = interpreter.get_input_details()[0], interpreter.get_output_details()[0]
    scale, zero_point = given["quantization"]
    steps = np.rint((images / 16).astype(np.float32) / np.float32(scale)) + zero_point
    quantized = np.clip(steps, -128, 127).astype(np.int8)
    predicted = []
    for image in quantized:
        interpreter.set_tensor(given["index"], image.reshape(1, 8, 8, 1))
        interpreter.invoke()
        predicted.append(int(interpreter.get_tensor(returned["index"]).argmax()))
    assert np.mean(np.array(predicted) == labels) >= 0.98  # most of these it was trained on


def test_pushed_directory_tests_itself_without_the_project(local_run: Run, tmp_path: Path) -> None:
    directory = local_run.pushed[0].parent
    script = [sys.executable, str(directory / "selftest.py"), "--interpreter", "tensorflow.lite"]
    result = subprocess.run(script, capture_output=True, text=True, cwd=tmp_path)
    assert result.returncode == 0, result.stdout + result.stderr
    assert "self-test passed with tensorflow.lite" in result.stdout


def test_pushed_files_are_found_by_the_pointer_and_are_those_of_the_manifest(local_run: Run) -> None:
    version = (local_run.root / "pushed" / "latest").read_text().strip()
    directory = local_run.pushed[0].parent
    assert directory == local_run.root / "pushed" / version
    manifest = json.loads((directory / "manifest.json").read_text())
    found = {path.name: hashlib.sha256(path.read_bytes()).hexdigest() for path in directory.iterdir()}
    del found["manifest.json"], found["report.html"]
    assert {name: file["sha256"] for name, file in manifest["files"].items()} == found
    assert manifest["facts"]["sha256"] == found["tflite"]
    assert manifest["run_id"]
    pushed = local_properties(local_run, "Pusher", "pushed_model")
    assert (pushed["pushed"], pushed["pushed_version"]) == (1, version)


def test_pushed_contract_goes_from_raw_pixels_to_integers_as_the_pipeline_does(local_run: Run) -> None:
    contract = json.loads((local_run.pushed[0].parent / "io_contract.json").read_text())
    (image,), (probabilities,) = contract["inputs"], contract["outputs"]
    assert probabilities["labels"] == list("0123456789")
    preparation = image["preparation"]
    assert (preparation["kind"], preparation["source_shape"]) == ("affine", [1, 64])
    # Pixels 0..16 become 0..1, in steps of the input's scale.
    assert preparation["multiplier"] == pytest.approx([1 / 16 / image["scale"]])
    assert preparation["verified"] == {"count": 32, "method": "examples", "mismatches": 0}


def test_pushed_file_says_where_it_comes_from(local_run: Run) -> None:
    found = read_metadata(local_run.pushed[0].read_bytes())
    model = local_properties(local_run, "QuantizeTrainer", "model")
    assert found is not None
    assert found.identity.parent_sha256 == model["sha256"]
    assert found.identity.labels == {"probabilities": tuple("0123456789")}
    assert found.content_sha256 == local_properties(local_run, "EdgeTPUCompiler", "compiled_model")["content_sha256"]
    assert found.identity.run_id


@pytest.mark.long
def test_beam_runner_pushes_the_same_model(local_run: Run, tmp_path: Path) -> None:
    run = run_digits(tmp_path, "--runner", "beam")
    assert run.status == 0, run.output
    # All but the metadata, which names the run.
    contents = [without_metadata(one.pushed[0].read_bytes()) for one in (run, local_run)]
    assert contents[0] == contents[1]
    manifests = [json.loads((one.pushed[0].parent / "manifest.json").read_text()) for one in (run, local_run)]
    assert manifests[0]["model_sha256"] == manifests[1]["model_sha256"]
    assert manifests[0]["run_id"] != manifests[1]["run_id"]
    for component, key in MODELS:
        facts = [stable(local_properties(one, component, key), component) for one in (run, local_run)]
        assert facts[0] == facts[1]
    reasons = [local_properties(one, "QuantizedEvaluator", "blessing")["reasons"] for one in (run, local_run)]
    assert reasons[0] == reasons[1]
    log = next((tmp_path / "logs").iterdir()).read_text()
    assert "PrismRunner" not in log  # Beam's default runner, which it downloads


def test_second_run_comes_from_the_cache_and_says_so(local_run: Run) -> None:
    run = run_digits(local_run.root)
    assert run.status == 0, run.output
    assert "From TFX's cache: 11 of 11 components" in run.output
    assert run.output.count("from cache") == len(_COMPONENTS)
    assert len(run.pushed) == 1


@pytest.mark.extended
def test_strict_gate_refuses_and_nothing_is_pushed(local_run: Run) -> None:
    before = local_run.pushed
    run = run_digits(local_run.root, "--gate", "accuracy >= 0.999")
    assert run.status == 3
    assert "Not blessed, not pushed: fails: accuracy >= 0.999 (accuracy is 0.9" in run.output
    assert run.pushed == before
    summary = _summary(run)
    assert (summary.blessed, summary.pushed_to) == (False, "")


@pytest.mark.long
def test_override_blesses_what_a_strict_gate_refuses_and_lineage_says_why(tmp_path: Path) -> None:
    strict = "accuracy >= 0.999"
    override = (
        "--override-gate",
        "accuracy>=.999",
        "--because",
        "a demo on Friday",
        "--until",
        "2999-12-31",
        "--by",
        "ada",
    )
    run = run_digits(tmp_path, "--gate", strict, *override)
    assert run.status == 0, run.output
    assert f"Blessed, but: overridden until 2999-12-31 because a demo on Friday: fails: {strict}" in run.output
    shown = _lineage(run, str(run.pushed[-1]))
    assert f"ada overrides '{strict}' until 2999-12-31 because a demo on Friday" in shown.stdout


@pytest.mark.long
def test_model_is_held_against_the_last_blessed_one_when_there_is_one(tmp_path: Path) -> None:
    gate = "accuracy drop vs last_blessed <= 0.05"
    first, second = (run_digits(tmp_path, "--gate", gate) for _ in range(2))
    assert (first.status, second.status) == (0, 0), first.output + second.output
    assert f"Blessed, but: skipped: {gate} (there is no last blessed model yet)" in first.output
    assert f"holds: {gate} (accuracy is" in second.output
    codes = [local_properties(run, "QuantizedEvaluator", "blessing")["reason_codes"] for run in (first, second)]
    assert codes == ["holds, no_baseline", "holds"]


def _lineage(run: Run, *arguments: str) -> subprocess.CompletedProcess[str]:
    where = ["--metadata", str(run.root / "metadata.sqlite")]
    return subprocess.run(command("lineage", *arguments, *where), capture_output=True, text=True, check=False)


def test_lineage_leads_from_the_file_to_the_examples(local_run: Run, tmp_path: Path) -> None:
    device = tmp_path / "from_a_device.tflite"
    shutil.copy(local_run.pushed[0], device)  # another name and place: found by its bytes
    result = _lineage(local_run, str(device))
    assert result.returncode == 0, result.stderr
    assert hashlib.sha256(device.read_bytes()).hexdigest() in result.stdout
    order = ["PushedModel", "chain of hashes: whole", "made by"]
    order += [f"by {name}" for name in ("EdgeTPUCompiler", "TFLiteIntConverter", "QuantizeTrainer", "Transform")]
    order += [f"by {name}" for name in ("SchemaGen", "StatisticsGen", "ImportExampleGen")]
    positions = [result.stdout.index(name) for name in order]
    assert positions == sorted(positions)
    assert "holds: accuracy >= 0.97 (accuracy is 0.9" in result.stdout
    assert re.search(r"float 0\.\d{4}\)$", result.stdout, re.MULTILINE)  # not cut off
    for fact in (
        "scheme: ",
        "qat.eval_accuracy: 0.9",
        "tensorflow: ",
        '"ops_on_target": 7',
        "span 0",
        "schema_sha256: ",
    ):
        assert fact in result.stdout


def test_lineage_of_a_real_run_has_a_whole_chain_whose_hashes_are_those_of_the_files(local_run: Run) -> None:
    found = json.loads(_lineage(local_run, str(local_run.pushed[0]), "--json").stdout)
    jsonschema.validate(found, lineage_schema())
    assert found["problems"] == []
    chain = {link["kind"]: link for link in found["chain"]}
    assert list(chain) == ["pushed", "not compiled", "int8", "qat", "float"]
    assert {link["file"] for link in found["chain"]} == {"as recorded"}
    for kind in ("not compiled", "int8"):
        file = Path(chain[kind]["uri"]) / "Format-Serving" / "tflite"
        assert hashlib.sha256(file.read_bytes()).hexdigest() == chain[kind]["sha256"]
    assert found["pushes"][0]["destination"] == str(local_run.pushed[0].parent)
    facts = json.loads((Path(chain["int8"]["uri"]) / "facts.json").read_text())
    assert {name: facts[name] for name in found["origin"]} == found["origin"]


def test_lineage_says_of_a_tampered_file_that_it_is_unknown_and_which_one_it_was(
    local_run: Run, tmp_path: Path
) -> None:
    content = bytearray(local_run.pushed[0].read_bytes())
    middle = len(content) // 2
    content[middle] ^= 1
    (tmp_path / "device.tflite").write_bytes(content)
    result = _lineage(local_run, str(tmp_path / "device.tflite"))
    assert result.returncode == 2
    for part in ("no model with sha256", "the same UUID", f"1 of {len(content):,} are others, the first at {middle:,}"):
        assert part in result.stderr


@pytest.mark.long
def test_run_after_a_kill_in_training_leaves_one_good_output(tmp_path: Path) -> None:
    killed = subprocess.Popen(command("run", "digits", "--root", str(tmp_path)), stdout=subprocess.PIPE, text=True)
    trainer = tmp_path / "artifacts" / "QuantizeTrainer"
    deadline = time.monotonic() + 120
    while not (trainer / "model").exists() and time.monotonic() < deadline:
        time.sleep(0.2)
    time.sleep(2)  # into the training
    killed.kill()
    killed.communicate()
    assert not list(trainer.rglob("saved_model.pb"))
    run = run_digits(tmp_path)
    assert run.status == 0, run.output
    assert "done  Transform            from cache" in run.output
    outputs = [path for path in (trainer / "model").iterdir() if path.is_dir()]
    assert len(outputs) == 1
    assert (outputs[0] / "Format-Serving" / "saved_model.pb").exists()
    assert len(run.pushed) == 1


def _lines(text: str) -> list[str]:
    return [line for line in text.splitlines() if line.strip()]


def test_mistakes_get_one_sentence_no_traceback_and_leave_nothing(tmp_path: Path) -> None:
    data = tmp_path / "data"
    data.mkdir()
    (data / "part.tfrecord").write_bytes(b"this is no TFRecord file")
    root = ["--root", str(tmp_path / "root")]
    cases = {
        ("run", "digts", *root): "unknown config 'digts': there are devices, digits",
        (
            "run",
            "digits",
            "--runner",
            "airflow",
            *root,
        ): "unknown runner 'airflow': there are beam, kubeflow, local, vertex",
        ("run", "digits", "--gate", "f1 >= 0.5", *root): "gates on metrics that are not computed: f1",
        ("run", "digits", "--gate", "accuracy[image=1] >= 0.5", *root): "no slices by image; there are label",
        ("run", "digits", "--override-gate", "accuracy >= 0.97", *root): "needs all of --override-gate, --because",
        (
            *("run", "digits", "--override-gate", "accuracy >= 0.9", "--because", "x", "--until", "2999-12-31", *root),
        ): "override of 'accuracy >= 0.9', which is no gate",
        (
            *("run", "digits", "--override-gate", "accuracy >= 0.97", "--because", "x", "--until", "2020-12-31", *root),
        ): "override of 'accuracy >= 0.97' expired on 2020-12-31",
        (
            *("run", "digits", "--override-gate", "accuracy >= 0.97", "--because", "x", "--until", "tomorrow", *root),
        ): "got 'tomorrow', expected a day such as 2026-12-31",
        (
            "run",
            "digits",
            "--scheme",
            "int7",
            *root,
        ): "unknown scheme 'int7': there are dynamic_range, float16",
        ("run", "digits", "--target", "abacus", *root): "unknown target 'abacus': there are cpu, edge_tpu",
        ("run", "digits", "--io-dtype", "image=int16", *root): "io_dtype: got 'int16', expected one of int8, uint8",
        ("run", "digits", "--root", "gs://bucket/root"): "root 'gs://bucket/root' is no local directory",
        ("run", "digits", "--examples", str(data), *root): "part.tfrecord is corrupt after record 0",
        ("run", "digits", "--examples", str(tmp_path / "none"), *root): "no directory",
        ("run", "digits", "--root", str(data / "part.tfrecord")): "cannot be written",
        ("lineage", str(data / "missing.tflite")): "no file ",
        ("lineage", str(data / "part.tfrecord"), "--metadata", str(data / "part.tfrecord")): "is no SQLite file",
    }
    for arguments, message in cases.items():
        result = subprocess.run(command(*arguments), capture_output=True, text=True, check=False)
        assert result.returncode == 2, (arguments, result)
        assert message in result.stderr
        assert len(_lines(result.stderr)) == 1
        assert "Traceback" not in result.stdout + result.stderr
    assert not (tmp_path / "root" / "artifacts").exists()
    assert not (tmp_path / "root" / "metadata.sqlite").exists()


def test_printed_lineage_command_works(local_run: Run) -> None:
    shown = re.search(r"^lineage +(\S.*)$", local_run.output, re.MULTILINE)
    assert shown is not None
    result = subprocess.run(shlex.split(shown.group(1)), capture_output=True, text=True, check=True)
    assert "Examples #1 by ImportExampleGen" in result.stdout


@pytest.mark.long
def test_run_climbs_the_ladder_from_the_last_blessed_model_and_shows_each_rung(local_run: Run) -> None:
    run = run_digits(local_run.root, "--warm-start", "--strategy", "auto", "--gate", "accuracy drop <= 0.02")
    assert run.status == 0, run.output
    summary = _summary(local_run)
    assert summary.warm_start == "6 of 6 layers"
    assert (summary.rung, len(summary.rungs)) == ("ptq", 2)
    assert re.search(r"ladder +float: accuracy 0\.9\d+, [\d,]+ bytes, .* s\n +ptq: .* good enough", run.output)
    assert summary.blessed
    assert "Transform" in summary.cached
    assert "QuantizeTrainer" not in summary.cached
