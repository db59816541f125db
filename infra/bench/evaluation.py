"""Evaluation of a float model and its integer model, ours against stock TFMA and a bare loop.

`python -m infra.bench.evaluation`: MLPerf Tiny's ResNet8 on CIFAR-10, records on disk to results on disk. Stock TFMA
evaluates one model after the other, since it refuses both at once. The bare loop reads the same records and runs both
models in batches, and does nothing with the results but to count. Every run is a process of its own; imports, which
are the same for all, do not count.
"""

import json
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

import click

from infra.bench import results, shared_data

_MODEL = "models/mlperf_tiny/pretrainedResnet.h5"
_RECORDS = "data/cifar10/eval-*.tfrecord"
_HOWS = {
    "bare": "bare loop, both models",
    "ours": "QuantizedEvaluator's pass, both models",
    "ours_2": "the same, 2 processes",
    "stock_float": "stock TFMA, float model",
    "stock_integer": "stock TFMA, integer model",
}
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
        found["two_processes"] = best["ours"]["seconds"] / best["ours_2"]["seconds"]
        click.echo(
            f"\n{found['times_stock']:.1f} times as fast as stock TFMA, {found['of_bare_loop']:.2f} times as long as"
            f" the bare loop, {found['two_processes']:.2f} times as fast with 2 processes"
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
    with tf.io.TFRecordWriter(str(split / "examples")) as writer:
        for record in tf.data.TFRecordDataset(sorted(map(str, shared.glob(_RECORDS)))):
            parsed = tf.io.parse_single_example(record, stored)
            pixels = tf.io.decode_image(parsed["image"], 3).numpy().astype(np.float32)
            samples += [pixels] if len(samples) < _SAMPLES else []
            example = tf.train.Example()
            example.features.feature[image].float_list.value.extend(pixels.ravel())
            example.features.feature["label"].int64_list.value.append(int(parsed["label"]))
            writer.write(example.SerializeToString())
    return samples


def _bare(directory: Path) -> int:
    import tensorflow as tf

    from components.quantization.interpreter import IntegerModel

    loaded = tf.saved_model.load(str(directory / "float" / "Format-Serving"))
    integer = IntegerModel((directory / "integer" / "Format-Serving" / "tflite").read_bytes())
    (name,) = integer.input_names
    count = 0
    for batch in tf.data.TFRecordDataset(_files(directory)).batch(_BATCH):
        features = loaded.signatures["transform_features"](examples=batch)
        pixels = features[name]
        by_float = next(iter(loaded.signatures["serving_dense"](**{name: pixels}).values())).numpy()
        by_integer = next(iter(integer.predict({name: pixels.numpy()}).values()))
        count += len(by_float.argmax(1) == by_integer.argmax(1))
    return count


def _ours(directory: Path, workers: int) -> int:
    import apache_beam as beam
    from apache_beam.options.pipeline_options import PipelineOptions
    from tfx.types import standard_artifacts

    from components.eval_config import eval_config
    from components.evaluation.gates import Gates
    from components.evaluation.measurements import FLOAT, INTEGER
    from components.evaluation.task import Task
    from components.evaluation_pass import EvaluationPass
    from components.paired_evaluation import read_measurements

    examples = standard_artifacts.Examples()
    examples.uri, examples.split_names = str(directory / "examples"), '["eval"]'
    models = {INTEGER: standard_artifacts.Model(), FLOAT: standard_artifacts.Model()}
    for name, artifact in models.items():
        artifact.uri = str(directory / name)
    task = Task(label_key="label", metrics={"accuracy": "SparseCategoricalAccuracy"})
    evaluation = EvaluationPass.of(eval_config(task, Gates.of("accuracy drop <= 0.01")), models)
    options = ["--runner=apache_beam.runners.portability.fn_api_runner.FnApiRunner"]
    if workers > 1:
        options += [f"--direct_num_workers={workers}", "--direct_running_mode=multi_processing"]
    with beam.Pipeline(options=PipelineOptions(options)) as pipeline:
        evaluation.write(evaluation.read(pipeline, [examples], "eval"), 0.95, str(directory / "ours"))
    return read_measurements(str(directory / "ours"), models, {}).examples[()]


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
    import tfx.types  # noqa: F401

    runs = {
        "bare": lambda: _bare(directory),
        "ours": lambda: _ours(directory, 1),
        "ours_2": lambda: _ours(directory, 2),
        "stock_float": lambda: _stock(directory, "tf_generic"),
        "stock_integer": lambda: _stock(directory, "tf_lite"),
    }
    started = time.perf_counter()
    count = runs[how]()
    print(json.dumps({"examples": count, "seconds": time.perf_counter() - started}))


if __name__ == "__main__":
    if sys.argv[1:2] == ["--one"]:
        _one(sys.argv[2], *map(Path, sys.argv[3:]))
    else:
        main()
