"""What the components need of gs://, through the clients that they use, in a process that only has its environment.

Run as a program, this file makes its checks and prints what went wrong in each; the tests run it once.
"""

import contextlib
import http.client
import itertools
import json
import os
import subprocess
import sys
import tempfile
import traceback
import urllib.error
import urllib.parse
import urllib.request
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import apache_beam as beam
import pytest
import tensorflow as tf
from apache_beam.io.gcp.gcsio import GcsIO
from apache_beam.options.pipeline_options import PipelineOptions
from apache_beam.testing.util import assert_that, equal_to
from google.cloud import storage
from tfx.dsl.io import fileio
from tfx.types import artifact_utils, standard_artifacts

from components import example_files, model_artifact, target_compiler
from components.quantization.file_hash import sha256
from components.targets import CompileError
from components.targets.edge_tpu import CompilerOptions

from edge_tpu_graphs import unary
from object_store import ObjectStore, object_store

_BUCKET = "bucket"
_ROOT = f"gs://{_BUCKET}"
_RECORDS = [
    tf.train.Example(
        features=tf.train.Features(
            feature={"number": tf.train.Feature(int64_list=tf.train.Int64List(value=[number]))},
        )
    ).SerializeToString()
    for number in range(50)
]
_LARGE = bytes(range(256)) * 8 * 1024  # 2 MiB: libcurl asks before it sends so much
_BEAM_ARGS = ["--direct_running_mode=in_memory", "--runner=apache_beam.runners.portability.fn_api_runner.FnApiRunner"]


def _write(path: str, content: bytes) -> None:
    with fileio.open(path, "wb") as file:
        file.write(content)


def _read(path: str) -> bytes:
    with fileio.open(path, "rb") as file:
        content: bytes = file.read()
    return content


def _refused(call: Callable[..., Any], *arguments: str) -> bool:
    try:
        call(*arguments)
    except (fileio.NotFoundError, tf.errors.AlreadyExistsError):
        return True
    return False


def _use_files(root: str) -> Iterator[Any]:
    """Does all that fileio can; yields what it saw, without the slash that marks directories in object stores."""

    def names(directory: str) -> list[str]:
        return sorted(name.rstrip("/") for name in fileio.listdir(directory))

    yield fileio.exists(f"{root}/a"), fileio.isdir(f"{root}/a")
    fileio.makedirs(f"{root}/a/b")
    yield fileio.exists(f"{root}/a"), fileio.isdir(f"{root}/a"), names(f"{root}/a"), names(f"{root}/a/b")
    _write(f"{root}/a/b/large", _LARGE)
    _write(f"{root}/a/b/empty", b"")
    _write(f"{root}/a/ü +%2F?#&", b"name")
    yield names(f"{root}/a"), names(f"{root}/a/b")
    yield _read(f"{root}/a/b/large") == _LARGE, _read(f"{root}/a/b/empty"), _read(f"{root}/a/ü +%2F?#&")
    yield fileio.stat(f"{root}/a/b/large").length, fileio.isdir(f"{root}/a/b/large")
    yield sorted(path.removeprefix(root) for path in fileio.glob(f"{root}/a/b/*"))
    yield sorted((path.removeprefix(root).rstrip("/"), sorted(files)) for path, _, files in fileio.walk(f"{root}/a"))
    yield _refused(fileio.rename, f"{root}/a/ü +%2F?#&", f"{root}/a/b/empty")
    fileio.copy(f"{root}/a/b/large", f"{root}/c")
    fileio.rename(f"{root}/a", f"{root}/d")
    yield fileio.exists(f"{root}/a"), names(f"{root}/d"), names(f"{root}/d/b"), _read(f"{root}/c") == _LARGE
    fileio.rename(f"{root}/d/b/empty", f"{root}/c", overwrite=True)
    yield names(root), names(f"{root}/d/b"), _read(f"{root}/c")
    fileio.remove(f"{root}/c")
    fileio.rmtree(f"{root}/d/b")
    yield names(root), names(f"{root}/d")
    yield (
        _refused(fileio.listdir, f"{root}/a"),
        _refused(fileio.remove, f"{root}/c"),
        _refused(fileio.rmtree, f"{root}/a"),
    )


def check_fileio() -> None:
    with tempfile.TemporaryDirectory() as directory:
        pairs = itertools.zip_longest(_use_files(f"{_ROOT}/files"), _use_files(f"{directory}/files"))
        for step, (there, here) in enumerate(pairs):
            assert there == here, f"step {step}: {there} on gs://, {here} locally"


def check_many_files() -> None:
    client = storage.Client()
    names = {f"{number:04}" for number in range(1001)}  # a page has 1000
    for name in names:
        client.bucket(_BUCKET).blob(f"many/{name}").upload_from_string(b"")
    assert sorted(fileio.listdir(f"{_ROOT}/many")) == sorted(names)
    assert {blob.name for blob in client.list_blobs(_BUCKET, prefix="many/")} == {f"many/{name}" for name in names}
    fileio.rmtree(f"{_ROOT}/many")
    assert not list(client.list_blobs(_BUCKET, prefix="many/"))


def check_records() -> None:
    for compression, records in itertools.product(("", "GZIP"), ([], _RECORDS)):
        path = f"{_ROOT}/records/{compression}{len(records)}"
        with tf.io.TFRecordWriter(path, compression) as writer:
            for record in records:
                writer.write(record)
        assert list(tf.data.TFRecordDataset(path, compression).as_numpy_iterator()) == records


def _write_shards(path: str) -> None:
    with beam.Pipeline(options=PipelineOptions(_BEAM_ARGS)) as pipeline:
        _ = pipeline | beam.Create(_RECORDS) | beam.io.WriteToTFRecord(path, file_name_suffix=".gz", num_shards=3)


def check_beam() -> None:
    for _ in "once", "and again, over what is there":
        _write_shards(f"{_ROOT}/beam/out")
        files = fileio.glob(f"{_ROOT}/beam/*")
        assert files == [f"{_ROOT}/beam/out-0000{shard}-of-00003.gz" for shard in range(3)]
        assert sorted(tf.data.TFRecordDataset(files, "GZIP").as_numpy_iterator()) == sorted(_RECORDS)
    with beam.Pipeline(options=PipelineOptions(_BEAM_ARGS)) as pipeline:
        assert_that(pipeline | beam.io.ReadFromTFRecord(f"{_ROOT}/beam/out*"), equal_to(_RECORDS))


def check_beam_files() -> None:
    files = GcsIO()
    for name, content in {"empty": b"", "large": _LARGE}.items():
        path = f"{_ROOT}/gcsio/{name} ü+%"
        with files.open(path, "w") as file:
            file.write(content)
        files.copy(path, f"{path} copied")
        with files.open(f"{path} copied", "r") as file:
            assert file.read() == content
        assert _read(path) == content
        assert dict(files.list_files(f"{_ROOT}/gcsio/{name}")) == dict.fromkeys((path, f"{path} copied"), len(content))
        files.delete_batch([path, f"{path} copied"])
        assert not files.exists(path)


def check_saved_model() -> None:
    module = tf.Module()
    module.scale = tf.Variable([1.0, 2.0])
    module.serve = tf.function(lambda x: x * module.scale, input_signature=[tf.TensorSpec([2])])
    tf.saved_model.save(module, f"{_ROOT}/saved", signatures=module.serve)
    served = tf.saved_model.load(f"{_ROOT}/saved").signatures["serving_default"](tf.constant([3.0, 4.0]))
    assert [values.numpy().tolist() for values in served.values()] == [[3.0, 8.0]]


def _model(name: str) -> standard_artifacts.Model:
    artifact = standard_artifacts.Model()
    artifact.uri = f"{_ROOT}/models/{name}"
    return artifact


def check_tflite_model() -> None:
    artifact = _model("tflite")
    # The second attempt comes at once, while TensorFlow still believes what it saw of the first.
    for attempt in b"first", b"second":
        with model_artifact.staged_output(artifact) as directory:
            (directory / f"only in the {attempt.decode()}").write_bytes(b"")
            (model_artifact.serving_directory(directory) / "tflite").write_bytes(attempt)
            model_artifact.record_facts(artifact, directory, {"text": attempt.decode(), "half": 0.5, "three": 3})
        assert model_artifact.read_tflite(artifact) == attempt
        assert model_artifact.read_facts(artifact) == {"text": attempt.decode(), "half": 0.5, "three": 3}
        files = {name for _, _, names in fileio.walk(artifact.uri) for name in names}
        assert files == {f"only in the {attempt.decode()}", "facts.json", "tflite"}
        assert not any(".partial" in path for path, _, _ in fileio.walk(artifact.uri))


def check_failed_model() -> None:
    artifact = _model("failed")
    with contextlib.suppress(RuntimeError), model_artifact.staged_output(artifact) as directory:
        (model_artifact.serving_directory(directory) / "tflite").write_bytes(b"model")
        raise RuntimeError
    assert not fileio.exists(artifact.uri)
    assert model_artifact.read_facts(artifact) == {}
    with pytest.raises(ValueError, match="has no Format-Serving/tflite"):
        model_artifact.read_tflite(artifact)
    with (
        pytest.raises(ValueError, match="has no Format-Serving/saved_model.pb"),
        model_artifact.local_saved_model(artifact),
    ):
        pass


def check_failed_compilation() -> None:
    source, output = _model("source"), _model("compiled")
    with model_artifact.staged_output(source) as directory:
        (model_artifact.serving_directory(directory) / "tflite").write_bytes(unary("RELU", 1, 8))
    with tempfile.TemporaryDirectory() as directory:
        compiler = Path(directory) / "edgetpu_compiler"
        options = CompilerOptions(compiler=str(compiler)).to_json()
        properties = {"target": "edge_tpu", "when_missing": "fail", "options": options}
        for attempt in "first", "second":  # nothing of the first is left behind the second
            said = f"{attempt}: Model not quantized\n"
            writes = f'[ "$1" = --version ] || echo {attempt} > out/{attempt}.log'
            compiler.write_text(f"#!/bin/sh\nprintf '{said}'\n{writes}\nexit 1\n")
            compiler.chmod(0o755)
            kept = f"{output.uri}.failed"
            with pytest.raises(CompileError, match=f"All that the compiler wrote is in {kept}$"):
                target_compiler.Executor().Do({"model": [source]}, {"compiled_model": [output]}, properties)
            files = {name: _read(f"{kept}/{name}").decode() for name in fileio.listdir(kept)}
            assert files == {
                "error.log": said,
                "attempt_1.txt": said,
                f"attempt_1_{attempt}.log": f"{attempt}\n",
            }
            assert not fileio.exists(output.uri)


def check_saved_model_artifact() -> None:
    module = tf.Module()
    module.serve = tf.function(lambda x: x + 1.0, input_signature=[tf.TensorSpec([2])])
    artifact = _model("saved")
    with model_artifact.staged_output(artifact) as directory:
        tf.saved_model.save(module, str(directory / model_artifact.SERVING_DIR), signatures=module.serve)
        published = sha256(directory / model_artifact.SERVING_DIR)
    with model_artifact.local_saved_model(artifact) as directory:
        assert sha256(directory) == published
        assert tf.saved_model.load(str(directory)).serve(tf.constant([1.0, 2.0])).numpy().tolist() == [2.0, 3.0]
    assert not directory.exists()


def check_examples() -> None:
    artifact = standard_artifacts.Examples()
    artifact.uri = f"{_ROOT}/examples"
    artifact.split_names = artifact_utils.encode_split_names(["train", "eval"])
    _write_shards(artifact_utils.get_split_uris([artifact], "train")[0] + "/data_tfrecord")
    assert sorted(example_files.read_split([artifact], "train")) == sorted(_RECORDS)
    with tempfile.TemporaryDirectory() as directory:
        staged = example_files.stage_split([artifact], "train", 7, Path(directory))
        assert sorted(tf.data.TFRecordDataset(str(staged)).as_numpy_iterator()) == sorted(_RECORDS)
    assert len(example_files.sample_split([artifact], "train", 5, 7)) == 5


_CHECKS = {name.removeprefix("check_"): check for name, check in list(globals().items()) if name.startswith("check_")}


@pytest.fixture(scope="module")
def store() -> Iterator[ObjectStore]:
    with object_store() as store:
        store.make_bucket(_BUCKET)
        yield store


@pytest.fixture(scope="module")
def failures(store: ObjectStore) -> dict[str, str]:
    """What went wrong in each check, empty if nothing did."""
    environment = {**os.environ, **store.environment, "PYTHONPATH": str(Path(__file__).parents[1])}
    ran = subprocess.run([sys.executable, __file__], env=environment, capture_output=True, text=True, timeout=300)
    assert ran.returncode == 0, ran.stderr
    print(ran.stderr)
    reported: dict[str, str] = json.loads(ran.stdout.splitlines()[-1])
    return reported


@pytest.mark.extended
@pytest.mark.parametrize("check", _CHECKS)
def test_client_works_on_gs_when_only_the_environment_is_set(check: str, failures: dict[str, str]) -> None:
    assert not failures[check], failures[check]


@pytest.mark.extended
@pytest.mark.usefixtures("failures")
def test_object_store_has_what_another_process_published_when_it_has_ended(store: ObjectStore) -> None:
    published = {name: content for name, content in store.objects(_BUCKET).items() if name.startswith("models/tflite/")}
    assert published["models/tflite/Format-Serving/tflite"] == b"second"
    assert json.loads(published["models/tflite/facts.json"])["text"] == "second"


@pytest.fixture
def ask(store: ObjectStore) -> Callable[..., tuple[int, bytes]]:
    """Sends a request; returns status and body of the answer."""

    def send(method: str, path: str, body: bytes = b"", **headers: str) -> tuple[int, bytes]:
        request = urllib.request.Request(
            store.environment["STORAGE_EMULATOR_HOST"] + path, data=body or None, headers=headers, method=method
        )
        try:
            with urllib.request.build_opener(urllib.request.ProxyHandler({})).open(request) as answer:
                return answer.status, answer.read()
        except urllib.error.HTTPError as error:
            with error:
                return error.code, error.read()

    return send


def _upload(ask: Callable[..., tuple[int, bytes]], name: str, content: bytes, query: str = "") -> int:
    path = f"/upload/storage/v1/b/{_BUCKET}/o?uploadType=media&name={name}{query}"
    return ask("POST", path, content, **{"Content-Type": "application/octet-stream"})[0]


def test_object_store_keeps_names_apart_when_they_differ_by_a_slash(
    store: ObjectStore, ask: Callable[..., tuple[int, bytes]]
) -> None:
    names = ["name", "name/", "name/../name", "name//name"]
    for name in names:
        assert _upload(ask, urllib.parse.quote(name, safe=""), name.encode()) == 200
    assert [name for name in store.objects(_BUCKET) if name.startswith("name")] == names
    for name in names:
        assert ask("GET", f"/{_BUCKET}/{urllib.parse.quote(name, safe='')}") == (200, name.encode())


def test_object_store_gives_pages_when_more_is_there(ask: Callable[..., tuple[int, bytes]]) -> None:
    for name in "p%2Fa", "p%2Fb%2Fc", "p%2Fd":
        _upload(ask, name, b"")
    token, pages = "", []
    for _ in range(3):
        path = f"/storage/v1/b/{_BUCKET}/o?prefix=p/&delimiter=/&maxResults=1&pageToken={token}"
        page = json.loads(ask("GET", path)[1])
        token = page.pop("nextPageToken", None)
        pages.append([item["name"] for item in page.get("items", [])] + page.get("prefixes", []))
    assert (pages, token) == ([["p/a"], ["p/b/"], ["p/d"]], None)


def test_object_store_refuses_a_range_when_it_begins_beyond_the_end(ask: Callable[..., tuple[int, bytes]]) -> None:
    _upload(ask, "five", b"12345")
    _upload(ask, "none", b"")
    assert ask("GET", f"/{_BUCKET}/five", Range="bytes=3-9") == (206, b"45")
    assert ask("GET", f"/{_BUCKET}/five", Range="bytes=5-9")[0] == 416
    assert ask("GET", f"/{_BUCKET}/none", Range="bytes=0-9")[0] == 416


def test_object_store_refuses_an_upload_when_its_precondition_fails(
    store: ObjectStore, ask: Callable[..., tuple[int, bytes]]
) -> None:
    assert [_upload(ask, "once", content, "&ifGenerationMatch=0") for content in (b"first", b"second")] == [200, 412]
    assert _upload(ask, "once", b"third", "&ifMetagenerationMatch=1") == 501
    assert store.objects(_BUCKET)["once"] == b"first"


def test_object_store_refuses_a_tunnel_when_it_leads_elsewhere(store: ObjectStore) -> None:
    connection = http.client.HTTPConnection(store.environment["https_proxy"].removeprefix("http://"))
    connection.set_tunnel("example.com", 443)
    with pytest.raises(OSError, match="403 there is no example.com:443 here"):
        connection.connect()


def main() -> None:
    """Makes all checks."""
    failures = dict.fromkeys(_CHECKS, "")
    for name, check in _CHECKS.items():
        try:
            check()
        except BaseException:
            failures[name] = traceback.format_exc()
    print(json.dumps(failures))


if __name__ == "__main__":
    main()
