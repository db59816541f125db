"""QuantizedEvaluator refuses files that no interpreter survives, as candidate and as baseline, and goes on."""

import collections
import json
import random
import shutil
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import pytest
import tensorflow_model_analysis as tfma
from evaluated_models import EvaluatedModel, artifact_of, example_columns, integer_contract, write_examples
from tfx import types
from tfx.types import channel_utils, standard_artifacts

from components import model_probes, quantized_evaluator
from components.evaluation.gates import Gates
from components.evaluation.probe import probe, unreadable
from components.evaluation.smoke_process import ModelRun
from infra import fuzz_audit
from pipelines.configs import load_config

import audited_models

pytestmark = pytest.mark.extended
_OF_EACH_END = 4
_GATE = "accuracy >= 0.5"
_AGAINST_LAST = "accuracy drop vs last_blessed <= 0.1"
_CHANNELS = {
    "examples": channel_utils.as_channel([standard_artifacts.Examples()]),
    **{
        name: channel_utils.as_channel([standard_artifacts.Model()])
        for name in ("model", "baseline_model", "last_blessed_model")
    },
}


class Bench:
    """Models and examples, and evaluations of them."""

    def __init__(self, root: Path) -> None:
        self.root = root
        self.float_model = EvaluatedModel(("kind",)).save(root / "float")
        self.examples = write_examples(example_columns(60), root / "examples")
        self.integer = EvaluatedModel(("kind",)).save_tflite(root / "integer")
        contract = integer_contract(("a", "b", "c")).to_json()
        (root / "integer" / "Format-Serving" / "io_contract.json").write_text(contract)
        self.good = (root / "integer" / "Format-Serving" / "tflite").read_bytes()

    def model(self, directory: Path, tflite: bytes | None) -> types.Artifact:
        """The integer model with another file, or without one."""
        shutil.copytree(self.root / "integer", directory)
        file = directory / "Format-Serving" / "tflite"
        file.unlink()
        if tflite is not None:
            file.write_bytes(tflite)
        return artifact_of(directory)

    def evaluate(
        self, directory: Path, model: types.Artifact, last: types.Artifact | None, *gates: str
    ) -> tuple[dict[str, Any], types.Artifact, types.Artifact]:
        """Returns verdict, evaluation and blessing."""
        component = quantized_evaluator.QuantizedEvaluator(
            **_CHANNELS,
            label_key="kind",
            metrics={"accuracy": "SparseCategoricalAccuracy"},
            gates=Gates.of(*gates),
            target="cpu",
        )
        evaluation, blessing = standard_artifacts.ModelEvaluation(), standard_artifacts.ModelBlessing()
        evaluation.uri, blessing.uri = str(directory / "evaluation"), str(directory / "blessing")
        inputs = {"examples": [self.examples], "model": [model], "baseline_model": [self.float_model]}
        inputs |= {} if last is None else {"last_blessed_model": [last]}
        context = quantized_evaluator.Executor.Context(
            beam_pipeline_args=list(load_config("digits").beam_pipeline_args), tmp_dir=str(directory), unique_id="1"
        )
        outputs = {"evaluation": [evaluation], "blessing": [blessing]}
        quantized_evaluator.Executor(context).Do(inputs, outputs, component.exec_properties)
        return json.loads((directory / "blessing" / "verdict.json").read_text()), evaluation, blessing


@pytest.fixture(scope="module")
def bench(tmp_path_factory: pytest.TempPathFactory) -> Bench:
    return Bench(tmp_path_factory.mktemp("bench"))


def _one_bit_changed(good: bytes) -> list[bytes]:
    """Files that parse, changed where tables of the flatbuffer refer to others."""
    made = []
    for place in range(8, 280, 2):
        content = bytearray(good)
        content[place] ^= 0x40
        made.append(bytes(content))
    return [content for content in made if not unreadable(content)]


@pytest.fixture(scope="module")
def runs(bench: Bench) -> dict[bytes, ModelRun]:
    """What came of probing all files here, with one start of the process that does."""
    other = EvaluatedModel(("tags",)).save_tflite(bench.root / "tags")
    tags = (Path(other.uri) / "Format-Serving" / "tflite").read_bytes()
    files = [*_one_bit_changed(bench.good), bench.good, tags]
    probed = probe({str(number): content for number, content in enumerate(files)})
    return dict(zip(files, probed.values(), strict=True))


@pytest.fixture
def known(runs: dict[bytes, ModelRun], monkeypatch: pytest.MonkeyPatch) -> None:
    """Probes say what came of it before."""
    monkeypatch.setattr(model_probes, "probe", _known(runs))


@pytest.fixture(scope="module")
def crashing(runs: dict[bytes, ModelRun]) -> bytes:
    """A file that ends the process that loads it: the interpreter recurses until its stack is full."""
    content = audited_models.nested(20_000)
    runs |= {content: probe({"nested": content})["nested"]}
    assert "SIGSEGV" in runs[content].ended
    return content


def _known(runs: Mapping[bytes, ModelRun]) -> Callable[[Mapping[str, bytes]], dict[str, ModelRun]]:
    return lambda tflites: {name: runs[tflite] for name, tflite in tflites.items()}


def _refused(bench: Bench, directory: Path, tflite: bytes) -> str:
    """Evaluates a file that must be refused, looks at all that is published, and returns the code."""
    model = bench.model(directory / "model", tflite)
    verdict, evaluation, blessing = bench.evaluate(directory, model, None, _GATE)
    assert not verdict["blessed"]
    assert (directory / "blessing" / "NOT_BLESSED").exists()
    assert blessing.get_int_custom_property("blessed") == 0
    assert blessing.get_string_custom_property("current_model") == model.uri
    assert not tfma.load_validation_result(evaluation.uri).validation_ok
    assert not tfma.load_eval_result(evaluation.uri, model_name="integer").slicing_metrics
    paired = json.loads((directory / "evaluation" / "paired.json").read_text())
    assert paired == {"paired": [], "inputs": [], "outputs": [], "labels": []}
    (code,) = {reason["code"] for reason in verdict["reasons"]}
    return str(code)


def test_evaluator_refuses_a_model_when_it_segfaults(bench: Bench, crashing: bytes, tmp_path: Path) -> None:
    assert _refused(bench, tmp_path, crashing) == "crashed"


def test_evaluator_refuses_a_model_when_it_is_no_file_of_a_model(bench: Bench, tmp_path: Path) -> None:
    files = [b"", b"no model", bench.good[: len(bench.good) // 2]]
    assert [_refused(bench, tmp_path / str(n), tflite) for n, tflite in enumerate(files)] == ["unreadable"] * 3


@pytest.mark.usefixtures("known")
def test_evaluator_refuses_a_model_when_its_outputs_are_others(bench: Bench, tmp_path: Path) -> None:
    tflite = (bench.root / "tags" / "Format-Serving" / "tflite").read_bytes()
    assert _refused(bench, tmp_path / "refused", tflite) == "signature"


@pytest.mark.usefixtures("known")
def test_evaluator_refuses_by_a_reason_of_its_own_when_the_last_blessed_model_cannot_be_run(
    bench: Bench, crashing: bytes, tmp_path: Path
) -> None:
    for number, tflite in enumerate((None, crashing)):
        place = tmp_path / str(number)
        last = bench.model(place / "last", tflite)
        verdict, evaluation, _ = bench.evaluate(place, bench.integer, last, _GATE, _AGAINST_LAST)
        assert [reason["code"] for reason in verdict["reasons"]] == ["holds", "unusable_baseline"]
        assert tfma.load_eval_result(evaluation.uri, model_name="integer").slicing_metrics


@pytest.mark.usefixtures("known")
def test_evaluator_leaves_out_a_last_blessed_model_that_cannot_be_run_when_no_gate_asks_for_it(
    bench: Bench, crashing: bytes, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    verdict, _, _ = bench.evaluate(tmp_path, bench.integer, bench.model(tmp_path / "last", crashing), _GATE)
    assert verdict["blessed"]
    assert "the last blessed model is left out" in caplog.text


@pytest.mark.usefixtures("known")
def test_evaluator_refuses_a_model_when_its_contract_cannot_be_compared(bench: Bench, tmp_path: Path) -> None:
    model = bench.model(tmp_path / "model", bench.good)
    (tmp_path / "model" / "Format-Serving" / "io_contract.json").write_text("[" * 100_000)
    verdict, _, _ = bench.evaluate(tmp_path, model, bench.integer, _GATE, _AGAINST_LAST)
    assert [reason["code"] for reason in verdict["reasons"]] == ["incomplete"]


@pytest.mark.long
def test_evaluator_ends_with_a_verdict_whatever_comes_of_a_hundred_mutated_files(
    bench: Bench, crashing: bytes, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    random_ = random.Random(1)
    files = [crashing]
    while len(files) < 101:
        content = bytearray(bench.good)
        for _ in range(random_.randint(1, 3)):
            content[random_.randrange(len(content))] ^= 1 << random_.randrange(8)
        files.append(bytes(content) if len(files) % 2 else fuzz_audit.mutated(random_, [bench.good]))
    readable = [content for content in files if not unreadable(content)]
    probed = probe({str(number): content for number, content in enumerate(readable)})  # with one start of the process
    monkeypatch.setattr(model_probes, "probe", _known(dict(zip(readable, probed.values(), strict=True))))
    ends = collections.defaultdict(list)
    for number, content in enumerate(files):
        found = probed.get(str(readable.index(content))) if content in readable else None
        ends["unreadable" if found is None else found.ended[:24] or found.refused[:12]].append((number, content))
    codes = set()
    for number, content in (one for alike in ends.values() for one in alike[:_OF_EACH_END]):
        model = bench.model(tmp_path / str(number) / "model", content)
        verdict, _, _ = bench.evaluate(tmp_path / str(number), model, None, _GATE)
        codes |= {reason["code"] for reason in verdict["reasons"]}
    assert {"holds", "crashed", "unreadable"} <= codes
