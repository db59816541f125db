"""Lineage in stores of the shape of real runs: one of two targets, replayed with other ids, hashes and places."""

import hashlib
import html
import json
import shutil
from collections.abc import Callable
from pathlib import Path

import jsonschema
import pytest
from ml_metadata.proto import metadata_store_pb2 as mlmd

from components.quantization.calibration_set import CalibrationSet, sets_json
from infra.bench.recorded_run import Replayed
from pipelines.lineage.story import lineage_schema

from replayed_store import Counter, Store, changed, compiler_of

_DATA = ("ImportExampleGen", "StatisticsGen", "SchemaGen", "ExampleValidator", "Transform")
_TARGETS = ("edge_tpu", "cpu")


@pytest.fixture
def store(tmp_path: Path) -> Store:
    return Store(tmp_path)


def test_lineage_tells_all_of_a_pushed_file_when_it_was_copied_and_renamed(store: Store, tmp_path: Path) -> None:
    for name in ("run-1", "run-2"):
        run = store.run(name)
    store.file(run, "edge_tpu")
    found = store.lineage(store.file(run, "edge_tpu", tmp_path / "from_a_device.bin"))

    assert (found.pipeline, found.run, found.target, found.reused) == ("devices", "run-2", "edge_tpu", 0)
    assert [link.kind for link in found.chain] == ["pushed", "not compiled", "int8", "qat", "float"]
    assert [link.file for link in found.chain] == ["gone", "as recorded", "gone", "gone", "gone"]
    assert found.problems == ()
    assert {link.run for link in found.chain} == {"run-2"}
    (push,) = found.pushes
    assert push.destination == f"{store.root}/pushed/edge_tpu/{found.sha256[:12]}"
    assert {one.component: one.blessed for one in found.judgements} == {
        "EdgeInfraValidator": True,
        "QuantizedEvaluator": True,
    }
    assert set(push.blessings) == {one.id for one in found.judgements}
    assert {"Examples", "ExampleStatistics", "Schema", "TransformGraph", "Model"} == {one.type for one in found.nodes}
    assert [(one.component, one.span) for one in found.data] == [("Transform", None), ("ImportExampleGen", 0)]
    assert found.settings["scheme"]["name"] == "full_int8"
    assert found.settings["training"]["seed"] == found.origin["seed"]
    assert len(found.origin["training_examples_sha256"]) == 64
    assert 0 < found.metrics["evaluation.integer_accuracy"] <= 1


def test_lineage_says_what_a_push_replaced_and_what_replaced_it(store: Store) -> None:
    runs = [store.run("run-1")]
    for name in ("run-2", "run-3"):
        runs.append(store.run(name, before=runs[-1]))
    pushes = [store.lineage(store.artifact(run, compiler_of("cpu"), "Model").id).pushes[0] for run in runs]
    versions = [push.version for push in pushes]
    assert len(set(versions)) == 3
    assert [push.replaced_version for push in pushes] == ["", *versions[:2]]
    assert [push.replaced_sha256[:12] for push in pushes] == ["", *versions[:2]]
    assert [push.replaced_by for push in pushes] == [*versions[1:], ""]


def test_lineage_of_a_file_names_the_later_push_when_the_same_model_of_another_run_was_there(store: Store) -> None:
    first = store.run("run-1")
    model = store.artifact(first, compiler_of("cpu"), "Model")
    sha256 = model.custom_properties["sha256"].string_value
    second = store.run("run-2", edit=changed("Pusher-cpu", "PushedModel", sha256=sha256))
    assert [push.run for push in store.lineage(model.id).pushes] == ["run-1", "run-2"]
    other = store.artifact(second, compiler_of("cpu"), "Model")
    assert [push.sha256 for push in store.lineage(other.id).pushes] == [sha256]
    assert store.lineage(other.id).problems == ()
    assert f"was there already; its file has sha256 {sha256}" in store.cli(other.id).output


def test_lineage_tells_targets_apart_and_names_the_models_of_the_others(store: Store) -> None:
    run = store.run("run-1")
    found = {target: store.lineage(store.artifact(run, compiler_of(target), "Model").id) for target in _TARGETS}
    for target, one in found.items():
        assert [push.target for push in one.pushes] == [target]
        assert {sibling.target for sibling in one.siblings} == {*_TARGETS} - {target}
    assert found["cpu"].chain[-2:] == found["edge_tpu"].chain[-2:]  # of one training
    assert not {one.id for one in found["cpu"].judgements} & {one.id for one in found["edge_tpu"].judgements}


def test_lineage_of_a_later_run_leads_to_the_run_that_made_what_came_from_the_cache(store: Store) -> None:
    first = store.run("run-1")
    second = store.run("run-2", before=first, cached=_DATA)
    store.run("run-3", before=second, cached=tuple(second.executions))
    found = store.lineage(store.file(second, "cpu", store.root / "copy"))
    assert (found.run, found.reused) == ("run-2", 1)
    runs = {node.type: node.run for node in found.nodes if node.type != "Model"}
    assert runs == dict.fromkeys(("Examples", "ExampleStatistics", "Schema", "TransformGraph"), "run-1")
    assert {node.run for node in found.nodes if node.type == "Model"} == {"run-2"}
    assert len(found.pushes) == 1
    assert found.problems == ()


def test_lineage_names_an_earlier_model_whose_weights_were_taken_and_does_not_follow_it(store: Store) -> None:
    first, second = (store.run(name) for name in ("run-1", "run-2"))
    earlier = store.artifact(first, compiler_of("cpu"), "Model")
    event = mlmd.Event(type=mlmd.Event.INPUT, artifact_id=earlier.id, execution_id=second.executions["QuantizeTrainer"])
    event.path.steps.add(key="warm_start_model")
    store.client.put_events([event])
    model = store.artifact(second, compiler_of("cpu"), "Model")
    found = store.lineage(model.id)
    assert found.earlier_models == (earlier.id,)
    assert [node.id for node in found.nodes if node.run == "run-1"] == [earlier.id]
    assert "an earlier model, whose weights the training began with" in store.cli(model.id).output


def _resolve(store: Store, run: Replayed, found: mlmd.Artifact) -> None:
    """Lets a run have found an artifact by a Resolver, as TFX records it."""
    (context,) = [one for one in store.client.get_contexts_by_type("pipeline_run") if one.name == run.run_id]
    kind = store.client.put_execution_type(mlmd.ExecutionType(name="tfx.dsl.components.common.resolver.Resolver"))
    execution = mlmd.Execution(type_id=kind, last_known_state=mlmd.Execution.COMPLETE)
    (resolver,) = store.client.put_executions([execution])
    event = mlmd.Event(type=mlmd.Event.INTERNAL_OUTPUT, artifact_id=found.id, execution_id=resolver)
    event.path.steps.add(key="model")
    store.client.put_events([event])
    store.client.put_attributions_and_associations(
        [mlmd.Attribution(artifact_id=found.id, context_id=context.id)],
        [mlmd.Association(execution_id=resolver, context_id=context.id)],
    )


def test_lineage_leaves_models_out_that_its_run_only_found(store: Store) -> None:
    first, second = (store.run(name) for name in ("run-1", "run-2"))
    old, new = (store.artifact(run, compiler_of("cpu"), "Model") for run in (first, second))
    _resolve(store, second, old)
    of_second = {
        store.artifact(second, node, "Model").id for node in (compiler_of("edge_tpu"), "TFLiteIntConverter-edge-tpu")
    }
    assert {one.id for one in store.lineage(new.id).siblings} == of_second
    assert store.lineage(old.id).reused == 0  # found by a later run, not taken from the cache


def test_lineage_names_models_of_the_same_run_that_came_from_the_cache(store: Store) -> None:
    first = store.run("run-1")
    of_cpu = [node for node in first.executions if node.endswith("-cpu")]
    second = store.run("run-2", before=first, cached=[node for node in first.executions if node not in of_cpu])
    siblings = store.lineage(store.artifact(second, compiler_of("cpu"), "Model").id).siblings
    assert {one.id for one in siblings} == {
        store.artifact(first, node, "Model").id for node in (compiler_of("edge_tpu"), "TFLiteIntConverter-edge-tpu")
    }


def _window(*spans: int) -> Callable[[str, mlmd.Artifact], None]:
    """Lets a run have been made of a window of spans, whose examples and models say so."""
    facts = {"spans": json.dumps(spans), "span_fingerprints": json.dumps([f"files of {one}" for one in spans])}

    def edit(node: str, artifact: mlmd.Artifact) -> None:
        changed("ImportExampleGen", "Examples", span=spans[-1], **facts)(node, artifact)
        if artifact.type == "Model":
            on_model = {f"examples_{name}": value for name, value in facts.items()}
            changed(node, "Model", examples_span=spans[-1], **on_model)(node, artifact)

    return edit


def test_lineage_names_all_spans_of_a_window(store: Store, tmp_path: Path) -> None:
    first = store.run("run-1", edit=_window(1, 2, 5))
    second = store.run("run-2", before=first, edit=_window(2, 5, 7))
    before, after = (store.artifact(run, compiler_of("cpu"), "Model").id for run in (first, second))
    found = store.lineage(before)
    assert [(one.span, one.spans) for one in found.data] == [(None, ()), (5, (1, 2, 5))]
    assert found.data[1].span_fingerprints == ("files of 1", "files of 2", "files of 5")
    assert found.origin["examples_spans"] == "[1, 2, 5]"
    shown = store.cli(before, "--html", tmp_path / "page.html").output
    assert "spans 1, 2, 5, splits" in shown
    assert "span 2: files of 2" in shown
    assert "span 1: files of 1; span 2: files of 2" in (tmp_path / "page.html").read_text()
    assert "  examples_spans: [1, 2, 5] -> [2, 5, 7]" in store.cli("diff", before, after).output


@pytest.mark.parametrize(("span", "runs"), [(1, ["run-1"]), (2, ["run-1", "run-2"]), (3, ["run-3"]), (4, [])])
def test_list_shows_what_was_trained_on_a_span(store: Store, span: int, runs: list[str]) -> None:
    windows = {"run-1": _window(1, 2), "run-2": _window(2, 5)}
    made = {name: store.run(name, edit=edit) for name, edit in windows.items()}
    single = changed(compiler_of("cpu"), "Model", examples_span=3)  # of one span nobody lists several
    made["run-3"] = store.run("run-3", edit=single)
    listed = json.loads(store.cli("list", "--span", span, "--json").output)["pushes"]
    pushed = {name: store.artifact(run, "Pusher-cpu", "PushedModel").id for name, run in made.items()}
    assert [one["id"] for one in listed if one["target"] == "cpu"] == [pushed[name] for name in runs]
    assert all(span in one["spans"] for one in listed)
    nothing = f"nothing that was trained on span {span} was pushed\n"
    assert (store.cli("list", "--span", span).output == nothing) is (not runs)


def test_tree_json_and_page_tell_the_same_of_overrides_pushes_and_what_was_replaced(
    store: Store, tmp_path: Path
) -> None:
    override = {"gate": "accuracy >= 0.999", "because": "a demo on Friday", "until": "2999-12-31", "by": "ada"}
    runs = [store.run("run-1")]
    edit = changed("QuantizedEvaluator-cpu", "ModelBlessing", overrides=json.dumps([override]))
    runs.append(store.run("run-2", before=runs[-1], edit=edit))
    runs.append(store.run("run-3", before=runs[-1]))
    hashes = [store.artifact(run, compiler_of("cpu"), "Model").custom_properties["sha256"].string_value for run in runs]
    page = tmp_path / "page.html"
    tree, document = store.cli(hashes[1], "--html", page).output, store.cli(hashes[1], "--json").output
    (push,) = json.loads(document)["pushes"]
    (judgement,) = [one for one in json.loads(document)["judgements"] if one["overrides"]]
    assert judgement["overrides"] == [override]
    facts = [push["at"], push["run"], push["destination"], f"replaced {hashes[0][:12]}", hashes[0]]
    facts += [f"replaced by {hashes[2][:12]}", *override.values(), str(store.path)]
    assert push["destination"] == f"{store.root}/pushed/cpu/{hashes[1][:12]}"
    text = html.unescape(page.read_text())
    assert [one for one in facts if one not in tree] == [one for one in facts if one not in text] == []
    assert (push["replaced_sha256"], push["replaced_by"]) == (hashes[0], hashes[2][:12])
    assert json.loads(document)["store"] == str(store.path)


def test_lineage_says_who_overrode_a_gate_and_why(store: Store) -> None:
    override = {"gate": "accuracy >= 0.999", "because": "a demo on Friday", "until": "2999-12-31", "by": "ada"}
    node = "QuantizedEvaluator-cpu"
    codes = {"overrides": json.dumps([override]), "reason_codes": "holds, overridden"}
    run = store.run("run-1", edit=changed(node, "ModelBlessing", **codes))
    model = store.artifact(run, compiler_of("cpu"), "Model")
    (judgement,) = [one for one in store.lineage(model.id).judgements if one.component == "QuantizedEvaluator"]
    assert (judgement.blessed, judgement.codes, judgement.overrides) == (True, ("holds", "overridden"), (override,))
    said = "ada overrides 'accuracy >= 0.999' until 2999-12-31 because a demo on Friday"
    assert said in store.cli(model.id).output
    listed = json.loads(store.cli("list", "--json").output)["pushes"]
    assert [one["overrides"] for one in listed if one["target"] == "cpu"] == [1]


def test_lineage_shows_the_refusal_when_gates_let_a_model_not_pass(store: Store) -> None:
    def edit(node: str, artifact: mlmd.Artifact) -> None:
        reasons = json.dumps(["value: accuracy >= 0.999 (accuracy is 0.9)"])
        changed("QuantizedEvaluator-cpu", "ModelBlessing", blessed=0, reasons=reasons)(node, artifact)
        if node == "Pusher-cpu":
            artifact.custom_properties.clear()
            artifact.custom_properties["pushed"].int_value = 0

    run = store.run("run-1", edit=edit)
    found = store.lineage(store.artifact(run, compiler_of("cpu"), "Model").id)
    assert found.pushes == ()
    assert [link.kind for link in found.chain] == ["not compiled", "int8", "qat", "float"]
    assert {one.component: one.blessed for one in found.judgements} == {
        "EdgeInfraValidator": True,
        "QuantizedEvaluator": False,
    }
    listed = json.loads(store.cli("list", "--json").output)["pushes"]
    assert [one["target"] for one in listed] == ["edge_tpu"]


def test_tampered_file_is_unknown_with_the_nearest_known_and_where_the_bytes_differ(
    store: Store, tmp_path: Path
) -> None:
    store.run("run-0")
    run = store.run("run-1")
    store.run("run-2")  # of the same content, so of the same UUID
    device = tmp_path / "device.tflite"
    shutil.copy(store.file(run, "cpu"), device)
    content = bytearray(device.read_bytes())
    content[7], content[9] = 1, 1
    device.write_bytes(content)
    result = store.cli(device)
    assert result.exit_code == 2
    model = store.artifact(run, compiler_of("cpu"), "Model")
    uuid = json.loads(content[64:])["model_uuid"]
    assert f"no model with sha256 {hashlib.sha256(content).hexdigest()[:12]} is in this ML Metadata" in result.output
    assert f"the nearest known model is #{model.id}" in result.output
    assert f"the same UUID {uuid}" in result.output
    assert f"2 of {len(content):,} are others, the first at 7" in result.output


def test_unknown_file_is_said_to_be_unknown_when_it_says_nothing_of_itself(store: Store, tmp_path: Path) -> None:
    store.run("run-1")
    (tmp_path / "other.tflite").write_bytes(b"another model")
    result = store.cli(tmp_path / "other.tflite")
    assert result.exit_code == 2
    assert "was it changed, or made by another pipeline?" in result.output


def test_json_keeps_its_schema_and_the_schema_its_version(store: Store, request: pytest.FixtureRequest) -> None:
    run = store.run("run-1")
    result = store.cli(store.artifact(run, compiler_of("cpu"), "Model").id, "--json")
    jsonschema.validate(json.loads(result.output), lineage_schema())
    golden = Path(__file__).parents[1] / "goldens" / "lineage.schema.json"
    if request.config.getoption("--update-goldens"):
        golden.write_text(json.dumps(lineage_schema(), indent=2, sort_keys=True) + "\n")
    assert lineage_schema() == json.loads(golden.read_text()), "raise FORMAT if a name or meaning changed; README"


def test_diff_shows_what_changed_and_nothing_else(store: Store) -> None:
    first = store.run("run-1")
    changes = {"training_examples_sha256": "2" * 64, "tensorflow_version": "2.99.0"}
    second = store.run("run-2", before=first, edit=changed(compiler_of("cpu"), "Model", **changes))
    before, after = (store.artifact(run, compiler_of("cpu"), "Model").id for run in (first, second))
    found = json.loads(store.cli("diff", before, after, "--json").output)["changes"]
    assert {(one["group"], one["name"]) for one in found} == {
        *(("model", f"{kind} sha256") for kind in ("pushed", "not compiled", "int8", "qat", "float")),
        ("data and code", "training_examples_sha256"),
        ("versions", "tensorflow"),
    }
    assert [one["after"] for one in found if one["group"] != "model"] == ["2" * 64, "2.99.0"]
    assert "  tensorflow: 2.16.2 -> 2.99.0" in store.cli("diff", before, after).output
    assert store.cli("diff", before, before).output.endswith("nothing changed\n")


def test_lineage_shows_which_examples_calibrated_a_model_and_diff_compares_them(store: Store) -> None:
    runs, sets = [], []
    for number, (sha256, artifact) in enumerate((("1" * 64, 3), ("2" * 64, 9))):
        sets.append(
            CalibrationSet(
                by="TFLiteIntConverter",
                split="train",
                examples=300,
                chosen="uniform",
                seed=1,
                sha256=sha256,
                artifact=artifact,
                span=4,
            )
        )
        edit = changed(compiler_of("cpu"), "Model", calibration_sets=sets_json(sets[-1:]))
        runs.append(store.run(f"run-{number}", before=runs[-1] if runs else None, edit=edit))
    before, after = (store.artifact(run, compiler_of("cpu"), "Model").id for run in runs)
    found = json.loads(store.cli(before, "--json").output)
    jsonschema.validate(found, lineage_schema())
    assert [CalibrationSet(**one) for one in found["calibration_sets"]] == sets[:1]
    tree = " ".join(store.cli(before).output.replace("│", " ").split())
    assert "calibrated by TFLiteIntConverter with 300 examples of split train of Examples #3, span 4, seed 1" in tree
    changes = json.loads(store.cli("diff", before, after, "--json").output)["changes"]
    assert [one["name"] for one in changes if one["group"] == "data and code"] == [
        "calibration by TFLiteIntConverter.sha256"
    ]


def test_list_shows_each_push_with_what_it_replaced(store: Store) -> None:
    first = store.run("run-1")
    store.run("run-2", before=first)
    listed = json.loads(store.cli("list", "--json").output)["pushes"]
    assert [{one["target"] for one in half} for half in (listed[:2], listed[2:])] == [{*_TARGETS}] * 2
    assert [one["replaced_version"] for one in listed] == ["", "", *(one["version"] for one in listed[:2])]
    assert all(0 < one["metrics"]["accuracy"] <= 1 and one["span"] == 0 for one in listed)
    assert len(store.cli("list").output.splitlines()) == 5


def test_page_is_one_file_with_every_fact_and_no_script(store: Store, tmp_path: Path) -> None:
    reasons = json.dumps(["holds: accuracy >= 0.9 & <b>"])
    run = store.run("run-1", edit=changed("QuantizedEvaluator-cpu", "ModelBlessing", reasons=reasons))
    model = store.artifact(run, compiler_of("cpu"), "Model")
    assert store.cli(model.id, "--html", tmp_path / "page.html").exit_code == 0
    page = (tmp_path / "page.html").read_text()
    for fact in (
        *(link.sha256 for link in store.lineage(model.id).chain),
        "holds: accuracy &gt;= 0.9 &amp; &lt;b&gt;",
        "prefers-color-scheme: dark",
        '<html lang="en">',
        "<main>",
    ):
        assert fact in page
    for absent in ("<script", "http://", "src=", "@import", "<b>"):
        assert absent not in page


def test_lineage_needs_as_many_calls_in_a_large_store_as_in_a_small_one(
    store: Store, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    counts, later = [], 0
    run = store.run("run-0")
    device = store.file(run, "cpu", tmp_path / "device")
    for _ in range(2):
        with monkeypatch.context() as patched:
            counter = Counter(patched)
            store.lineage(device)
        counts.append(counter.calls)
        for _ in range(10):
            later += 1
            store.run(f"later-{later}", before=run, cached=_DATA)
    assert counts[0] == counts[1] < 80
