"""Evaluation of a float model and its integer model, ours against stock TFMA and a bare loop.

`python -m infra.bench.evaluation`: MLPerf Tiny's ResNet8 on CIFAR-10, records on disk to results on disk. Stock TFMA
evaluates one model after the other, since it refuses both at once. The bare loop reads the same records and runs both
models in batches, and does nothing with the results but to count. Every run is a process of its own; imports, which
are the same for all, do not count.

How throughput grows with Beam's workers is shown by processes that have one core each, since a process alone keeps all
cores busy; what they take to start is left out, by the difference between a short and a long evaluation.
"""

import contextlib
import itertools
import json
import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import click

from infra.bench import results, shared_data

_MODEL = "models/mlperf_tiny/pretrainedResnet.h5"
_RECORDS = "data/cifar10/eval-*.tfrecord"
_HOWS = {
    "bare": "bare loop, both models",
    "ours": "QuantizedEvaluator's pass, both models",
    "component": "QuantizedEvaluator, all of it",
    "stock_float": "stock TFMA, float model",
    "stock_integer": "stock TFMA, integer model",
    "one_worker": "QuantizedEvaluator's pass, 1 worker process with 1 core, once started",
    "two_workers": "the same, 2 worker processes with 2 cores",
}
_SHARDS = 4
_LONGER = 4  # times as many examples
_BATCH = 500
_SAMPLES = 200  # to calibrate with


@click.command()
@shared_data.shared_option
@click.option("--rounds", default=1, show_default=True, help="Runs of each kind; the fastest counts.")
@click.option("--only", multiple=True, type=click.Choice(list(_HOWS)), help="One of them; default: all.")
def main(shared: Path, rounds: int, only: tuple[str, ...]) -> None:
    """Times evaluations, into build/bench/evaluation.json."""
    shared_data.require_there(shared, (_MODEL, _RECORDS))
    with tempfile.TemporaryDirectory(prefix="tfx-qat-") as directory:
        _in_a_process("prepare", shared, Path(directory))
        runs: dict[str, list[dict[str, float]]] = {}
        for _ in range(rounds):  # in turns, so that a busy machine slows all down alike
            for how in only or _HOWS:
                runs.setdefault(how, []).append(_in_a_process(how, shared, Path(directory)))
    best = {how: min(found, key=lambda run: run["seconds"]) for how, found in runs.items()}
    rows = [
        (_HOWS[how], f"{run['seconds']:.1f}", f"{run['examples'] / run['seconds']:.0f}") for how, run in best.items()
    ]
    click.echo(results.markdown_table(("", "s", "examples/s"), rows))
    found: dict[str, Any] = {"runs": runs, "rounds": rounds}
    if set(best) == set(_HOWS):
        stock = best["stock_float"]["seconds"] + best["stock_integer"]["seconds"]
        found["times_stock"] = stock / best["ours"]["seconds"]
        found["of_bare_loop"] = best["ours"]["seconds"] / best["bare"]["seconds"]
        rates = [best[how]["examples"] / best[how]["seconds"] for how in ("two_workers", "one_worker")]
        found["two_workers"] = rates[0] / rates[1]
        click.echo(
            f"\n{found['times_stock']:.1f} times as fast as stock TFMA, {found['of_bare_loop']:.2f} times as long as"
            f" the bare loop, {found['two_workers']:.2f} times as fast with 2 workers"
        )
    click.echo(results.write_result("evaluation", found))


def _in_a_process(how: str, shared: Path, directory: Path) -> dict[str, float]:
    command = [
        sys.executable,
        "-W",
        "ignore",
        "-m",
        "infra.bench.evaluation",
        "--one",
        how,
        str(shared),
        str(directory),
    ]
    output = subprocess.run(command, check=True, capture_output=True, text=True).stdout
    found: dict[str, float] = json.loads(output.splitlines()[-1])
    return found


def _prepare(shared: Path, directory: Path) -> dict[str, float]:
    """Makes both models, and what stock TFMA wants: the integer model beside a SavedModel that transforms."""
    import numpy as np
    import tensorflow as tf
    import tf_keras

    from components.quantization import convert
    from components.quantization.qat.export import export_saved_model

    model = tf_keras.models.load_model(shared / _MODEL, compile=False)
    (image,), (output,) = model.input_names, model.output_names
    # Stock TFMA feeds an integer model with features of the records alone, and so the records hold pixels.
    features = {image: tf.io.FixedLenFeature([32, 32, 3], tf.float32), "label": tf.io.FixedLenFeature([], tf.int64)}

    class Transform(tf_keras.layers.Layer):  # type: ignore[misc]
        def call(self, inputs: dict[str, tf.Tensor]) -> dict[str, tf.Tensor]:
            pixels = {image: tf.identity(inputs[image])}
            return {**pixels, **({"label": inputs["label"][:, None]} if "label" in inputs else {})}

    transform = Transform()
    export_saved_model(
        model,
        directory / "float" / "Format-Serving",
        transform=transform,
        raw_feature_spec=features,
        serving_features=frozenset({image}),
        output_names=(output,),
    )
    samples = _write_examples(shared, directory / "examples" / "Split-eval", image)
    longer = directory / "examples" / "Split-longer"
    longer.mkdir()
    for file in _files(directory):
        for copy in range(_LONGER):
            (longer / f"{Path(file).name}-{copy}").symlink_to(file)
    tflite = convert(model, representative_dataset=[np.stack(samples)])
    serving = directory / "integer" / "Format-Serving"
    serving.parent.mkdir()
    serving.symlink_to(directory / "float" / "Format-Serving")
    (directory / "float" / "Format-Serving" / "tflite").write_bytes(tflite)
    return {}


def _write_examples(shared: Path, split: Path, image: str) -> list[Any]:
    """Writes the images as examples of pixels, under the name of the model's input; returns the first of them."""
    import numpy as np
    import tensorflow as tf

    split.mkdir(parents=True)
    stored = {"image": tf.io.FixedLenFeature([], tf.string), "label": tf.io.FixedLenFeature([], tf.int64)}
    samples = []
    with contextlib.ExitStack() as stack:
        files = [f"examples-{shard:05}-of-{_SHARDS:05}" for shard in range(_SHARDS)]
        writers = [stack.enter_context(tf.io.TFRecordWriter(str(split / file))) for file in files]
        for index, record in enumerate(tf.data.TFRecordDataset(sorted(map(str, shared.glob(_RECORDS))))):
            parsed = tf.io.parse_single_example(record, stored)
            pixels = tf.io.decode_image(parsed["image"], 3).numpy().astype(np.float32)
            samples += [pixels] if len(samples) < _SAMPLES else []
            example = tf.train.Example()
            example.features.feature[image].float_list.value.extend(pixels.ravel())
            example.features.feature["label"].int64_list.value.append(int(parsed["label"]))
            writers[index % _SHARDS].write(example.SerializeToString())
    return samples


def _bare(directory: Path) -> int:
    import tensorflow as tf

    from components.quantization.interpreter import IntegerModel
    from components.quantization.record_files import record_batches

    threads = len(os.sched_getaffinity(0))
    loaded = tf.saved_model.load(str(directory / "float" / "Format-Serving"))
    integer = IntegerModel((directory / "integer" / "Format-Serving" / "tflite").read_bytes(), threads=threads)
    (name,) = integer.input_names
    count = 0
    for batch in itertools.chain.from_iterable(record_batches(file, _BATCH) for file in _files(directory)):
        features = loaded.signatures["transform_features"](examples=tf.constant(batch))
        pixels = features[name]
        by_float = next(iter(loaded.signatures["serving_dense"](**{name: pixels}).values())).numpy()
        by_integer = next(iter(integer.predict({name: pixels.numpy()}).values()))
        count += len(by_float.argmax(1) == by_integer.argmax(1))
    return count


def _ours(directory: Path, split: str = "eval", workers: int = 0) -> int:
    """Evaluates in this process, or in as many others as there are workers."""
    import apache_beam as beam
    from tfx.types import standard_artifacts

    from components.beam_options import ParsedOptions, threads_of_worker
    from components.eval_config import eval_config
    from components.evaluation.gates import Gates
    from components.evaluation.measurements import FLOAT, INTEGER
    from components.evaluation.task import Task
    from components.evaluation_pass import EvaluationPass
    from components.evaluation_results import read_measurements

    examples = standard_artifacts.Examples()
    examples.uri, examples.split_names = str(directory / "examples"), '["eval", "longer"]'
    models = {INTEGER: standard_artifacts.Model(), FLOAT: standard_artifacts.Model()}
    for name, artifact in models.items():
        artifact.uri = str(directory / name)
    task = Task(label_key="label", metrics={"accuracy": "SparseCategoricalAccuracy"})
    evaluation = EvaluationPass.of(eval_config(task, Gates.of("accuracy drop <= 0.01")), models)
    options = ["--runner=apache_beam.runners.portability.fn_api_runner.FnApiRunner"]
    if workers:
        options += [f"--direct_num_workers={workers}", "--direct_running_mode=multi_processing"]
    with beam.Pipeline(options=ParsedOptions(options)) as pipeline:
        files = evaluation.read(pipeline, [examples], split)
        evaluation.write(files, 0.95, str(directory / "ours"), threads_of_worker(options))
    return read_measurements(str(directory / "ours"), models, {}).examples[()]


def _component(directory: Path) -> Callable[[], int]:
    """Returns what runs the component, which probes the integer model in a process of its own, and writes a page."""
    from tfx.types import artifact_utils, channel_utils, standard_artifacts

    from components.evaluation.gates import Gates
    from components.evaluation.measurements import FLOAT, INTEGER
    from components.evaluation_results import read_measurements
    from components.quantized_evaluator import Executor, QuantizedEvaluator

    names = {"examples": "examples", "model": "integer", "baseline_model": "float"}
    inputs = {name: [standard_artifacts.Model()] for name in names} | {"examples": [standard_artifacts.Examples()]}
    outputs = {"evaluation": [standard_artifacts.ModelEvaluation()], "blessing": [standard_artifacts.ModelBlessing()]}
    for name, (artifact,) in {**inputs, **outputs}.items():
        artifact.uri = str(directory / names.get(name, name))
    artifact_utils.get_single_instance(inputs["examples"]).split_names = '["eval"]'
    component = QuantizedEvaluator(
        **{name: channel_utils.as_channel(artifacts) for name, artifacts in inputs.items()},
        label_key="label",
        metrics={"accuracy": "SparseCategoricalAccuracy"},
        gates=Gates.of("accuracy drop <= 0.01"),
    )
    options = ["--runner=apache_beam.runners.portability.fn_api_runner.FnApiRunner"]
    executor = Executor(Executor.Context(beam_pipeline_args=options))

    def run() -> int:
        executor.Do(inputs, outputs, dict(component.exec_properties))
        return read_measurements(str(directory / "evaluation"), (INTEGER, FLOAT), {}).examples[()]

    return run


def _once_started(directory: Path, workers: int) -> dict[str, float]:
    """What a long evaluation takes more than a short one, each worker with a core of its own."""
    os.sched_setaffinity(0, sorted(os.sched_getaffinity(0))[:workers])
    runs = []
    for split in ("eval", "longer"):
        started = time.perf_counter()
        runs.append((_ours(directory, split, workers), time.perf_counter() - started))
    (short, seconds), (longer, longer_seconds) = runs
    return {"examples": longer - short, "seconds": longer_seconds - seconds}


def _stock(directory: Path, model_type: str) -> int:
    import tensorflow_model_analysis as tfma

    spec = tfma.ModelSpec(label_key="label", model_type=model_type)
    if model_type == "tf_lite":
        spec.preprocessing_function_names.append("transform_features")
    else:
        spec.signature_name = "serving_default"
    names = {"accuracy": "SparseCategoricalAccuracy", "example_count": "ExampleCount"}
    metrics = [tfma.MetricConfig(class_name=of, config=json.dumps({"name": name})) for name, of in names.items()]
    config = tfma.EvalConfig(
        model_specs=[spec], slicing_specs=[tfma.SlicingSpec()], metrics_specs=[tfma.MetricsSpec(metrics=metrics)]
    )
    shared = tfma.default_eval_shared_model(
        str(directory / "float" / "Format-Serving"), eval_config=config, include_default_metrics=False
    )
    result = tfma.run_model_analysis(
        eval_shared_model=shared,
        eval_config=config,
        data_location=str(directory / "examples" / "Split-eval" / "*"),
        output_path=str(directory / model_type),
    )
    return int(result.get_metrics_for_slice()["example_count"]["doubleValue"])


def _files(directory: Path) -> list[str]:
    return sorted(str(file) for file in (directory / "examples" / "Split-eval").iterdir())


def _one(how: str, shared: Path, directory: Path) -> None:
    """Runs once; prints what it took as one line of JSON."""
    if how == "prepare":
        print(json.dumps(_prepare(shared, directory)))
        return
    import apache_beam  # noqa: F401
    import tensorflow  # noqa: F401
    import tensorflow_model_analysis  # noqa: F401

    import components.quantized_evaluator  # noqa: F401

    workers = {"one_worker": 1, "two_workers": 2}
    if how in workers:
        print(json.dumps(_once_started(directory, workers[how])))
        return
    runs = {
        "bare": lambda: _bare(directory),
        "ours": lambda: _ours(directory),
        "stock_float": lambda: _stock(directory, "tf_generic"),
        "stock_integer": lambda: _stock(directory, "tf_lite"),
    }
    run = _component(directory) if how == "component" else runs[how]
    started = time.perf_counter()
    count = run()
    print(json.dumps({"examples": count, "seconds": time.perf_counter() - started}))


if __name__ == "__main__":
    if sys.argv[1:2] == ["--one"]:
        _one(sys.argv[2], *map(Path, sys.argv[3:]))
    else:
        main()
