"""The chain of hashes: whole, broken where one differs, incomplete where one was never recorded."""

import json
from pathlib import Path
from typing import Any

import pytest
from ml_metadata.proto import metadata_store_pb2 as mlmd

from replayed_store import Store, changed, compiler_of


@pytest.fixture
def store(tmp_path: Path) -> Store:
    return Store(tmp_path)


@pytest.mark.parametrize(
    ("node", "changes", "message"),
    [
        (
            "TFLiteIntConverter-cpu",
            {"parent_sha256": "0" * 64},
            "int8 #{} says that it was made of 000000000000, but qat",
        ),
        (
            "Pusher-cpu",
            {"parent_sha256": "1" * 64},
            "pushed #{} says that it was made of 111111111111, but not compiled",
        ),
    ],
)
def test_lineage_says_where_the_chain_is_broken(store: Store, node: str, changes: Any, message: str) -> None:
    kind = "PushedModel" if node.startswith("Pusher") else "Model"
    run = store.run("run-1", edit=changed(node, kind, **changes))
    (problem,) = store.lineage(store.artifact(run, compiler_of("cpu"), "Model").id).problems
    assert problem.startswith(message.format(store.artifact(run, node, kind).id))
    assert "broken" in store.cli(store.artifact(run, compiler_of("cpu"), "Model").id).output
    other = store.lineage(store.artifact(run, compiler_of("edge_tpu"), "Model").id)
    assert other.problems == ()


def test_lineage_calls_no_chain_whole_when_a_hash_is_missing_and_the_file_was_changed(
    store: Store, tmp_path: Path
) -> None:
    run = store.run("run-1", edit=changed("Pusher-cpu", "PushedModel", sha256=""))
    pushed = store.artifact(run, "Pusher-cpu", "PushedModel")
    content = bytearray(store.file(run, "cpu").read_bytes())
    content[0] ^= 1
    version = Path(pushed.custom_properties["pushed_destination"].string_value)
    version.mkdir(parents=True)
    (version / "tflite").write_bytes(content)
    found = store.lineage(pushed.id)
    assert (found.chain[0].id, found.chain[0].file) == (pushed.id, "not recorded")
    assert (found.problems, found.gaps) == ((), (f"nobody recorded the sha256 of pushed #{pushed.id}",))
    tree = store.cli(pushed.id, "--html", tmp_path / "page.html").output
    assert "chain of hashes: incomplete" in tree
    assert found.gaps[0] in tree
    page = (tmp_path / "page.html").read_text()
    assert '<span class="bad">the chain of hashes is incomplete</span>' in page
    assert found.gaps[0] in page


def test_lineage_says_that_nobody_recorded_what_an_old_model_was_made_of_or_replaced(store: Store) -> None:
    def edit(node: str, artifact: mlmd.Artifact) -> None:
        if node in (compiler_of("cpu"), "Pusher-cpu"):
            for name in ("parent_sha256", "replaced_version", "replaced_sha256"):
                artifact.custom_properties.pop(name, None)

    run = store.run("run-1", edit=edit)
    model = store.artifact(run, compiler_of("cpu"), "Model")
    found = store.lineage(model.id)
    assert (found.problems, found.chain_state) == ((), "incomplete")
    assert [gap.split(";")[0] for gap in found.gaps] == [
        f"nobody recorded the sha256 of what {name} was made of"
        for name in (f"pushed #{found.pushes[0].id}", f"not compiled #{model.id}")
    ]
    assert found.pushes[0].replaced_version is None
    tree = store.cli(model.id).output
    assert "nobody recorded what it replaced" in tree
    assert "replaced nothing" not in tree
    (listed,) = [one for one in json.loads(store.cli("list", "--json").output)["pushes"] if one["target"] == "cpu"]
    assert listed["replaced_version"] is None
    assert " not recorded" in store.cli("list").output


@pytest.mark.parametrize("taken_as", ["base_model", "warm_start_model"])
def test_lineage_compares_the_model_that_a_training_began_with(store: Store, taken_as: str) -> None:
    first = store.run("run-1")
    earlier = store.artifact(first, compiler_of("cpu"), "Model")
    sha256 = earlier.custom_properties["sha256"].string_value
    taken = {"run-2": sha256, "run-3": "3" * 64, "run-4": ""}
    found = {}
    for name, recorded in taken.items():
        run = store.run(name, edit=changed("QuantizeTrainer", "Model", **{f"{taken_as}_sha256": recorded}))
        trainer = run.executions["QuantizeTrainer"]
        event = mlmd.Event(type=mlmd.Event.INPUT, artifact_id=earlier.id, execution_id=trainer)
        event.path.steps.add(key=taken_as)
        store.client.put_events([event])
        found[name] = store.lineage(store.artifact(run, compiler_of("cpu"), "Model").id)
    assert [one.chain_state for one in found.values()] == ["whole", "broken", "incomplete"]
    trained = found["run-3"].chain[-2:]
    assert found["run-3"].problems == tuple(
        f"{one.kind} #{one.id} says that its {taken_as} was 333333333333, but #{earlier.id}, which its maker took, is"
        f" {sha256[:12]}"
        for one in trained
    )
    assert [(one.taken_as, one.sha256, one.taken_sha256) for one in trained[0].earlier] == [
        (taken_as, sha256, "3" * 64)
    ]


def test_lineage_says_that_a_file_in_the_store_was_changed(store: Store) -> None:
    run = store.run("run-1")
    path = store.file(run, "cpu")
    path.write_bytes(path.read_bytes() + b"x")
    model = store.artifact(run, compiler_of("cpu"), "Model")
    assert store.lineage(model.id).problems == (
        f"not compiled #{model.id}: its file is not the recorded one any more: {model.uri}",
    )
