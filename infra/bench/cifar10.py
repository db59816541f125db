"""Float, quantization-aware and integer accuracy of MLPerf Tiny's ResNet8 on CIFAR-10: `python -m infra.bench.cifar10`.

Each seed has stages: a float model fine-tuned from the pretrained one and quantized after training, ours, and with
--with-tfmot tfmot's, fine-tuned equally: the same start, batches, optimizer and number of steps. What a stage found is
kept in a file of its own, so that a benchmark that was interrupted goes on where it was; --fresh begins anew.
"""

import dataclasses
import json
import os
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import click
import numpy as np
import numpy.typing as npt

from infra.bench import results, shared_data
from infra.bench.cifar10_report import Classes, Report
from infra.bench.fine_tuning import batches, fine_tune
from infra.bench.integer_predictions import predicted_classes

_MODEL = "models/mlperf_tiny/pretrainedResnet.h5"
_TRAIN, _TEST = "data/cifar10/train-*.tfrecord", "data/cifar10/eval-*.tfrecord"
_BATCH_SIZE = 128
_LEARNING_RATE = 1e-4
_CALIBRATION_IMAGES = 500
_STAGES = ("float", "ours", "tfmot")


@dataclasses.dataclass(frozen=True, kw_only=True, slots=True)
class Settings:
    """What decides the result of a stage, besides its seed.

    Attributes:
      epochs: Epochs of fine-tuning.
      train_images: How many images are trained on; 0 for all.
      test_images: How many images are tested; 0 for all.
    """

    epochs: int
    train_images: int
    test_images: int


@dataclasses.dataclass(frozen=True, kw_only=True, slots=True)
class Images:
    """A split of CIFAR-10.

    Attributes:
      pixels: uint8 of shape (images, 32, 32, 3), 0..255, which is what the model takes.
      labels: Classes, (images,).
    """

    pixels: npt.NDArray[np.uint8]
    labels: Classes


@click.command()
@shared_data.shared_option
@click.option("--seed", "seeds", type=int, multiple=True, default=(1, 2, 3), show_default=True, help="Once for each.")
@click.option("--epochs", default=3, show_default=True, help="Epochs of fine-tuning.")
@click.option("--train-images", default=0, help="Only so many images of the train split, to try it out.")
@click.option("--test-images", default=0, help="Only so many images of the test split, to try it out.")
@click.option("--with-tfmot", is_flag=True, help="Trains with tfmot as well.")
@click.option("--fresh", is_flag=True, help="Begins anew, whatever is there of an earlier run.")
def main(
    shared: Path,
    seeds: tuple[int, ...],
    epochs: int,
    train_images: int,
    test_images: int,
    with_tfmot: bool,
    fresh: bool,
) -> None:
    """Accuracy of ResNet8 on CIFAR-10: in floats, in quantization-aware training, in integers; paired by image."""
    os.environ.setdefault("TF_USE_LEGACY_KERAS", "1")  # for tfmot, before TensorFlow is imported
    settings = Settings(epochs=epochs, train_images=train_images, test_images=test_images)
    shared_data.require_there(shared, (_MODEL, _TRAIN, _TEST))
    stages = _STAGES if with_tfmot else _STAGES[:2]
    experiment = _Experiment(shared, settings, fresh)
    found = {seed: {name: experiment.stage(seed, name) for name in stages} for seed in seeds}
    predictions = {seed: _named_predictions(by_stage) for seed, by_stage in found.items()}
    report = Report(predictions, experiment.labels())
    click.echo(f"\nthe pretrained model, untouched: {experiment.pretrained_accuracy():.2%}\n\n{report}")
    seconds = {seed: {name: stage["seconds"] for name, stage in stages.items()} for seed, stages in found.items()}
    path = results.write_result("cifar10", {**dataclasses.asdict(settings), **report.facts(), "seconds": seconds})
    click.echo(f"\n{path}")


class _Experiment:
    """Runs stages, or reads what they found before."""

    def __init__(self, shared: Path, settings: Settings, fresh: bool) -> None:
        self._shared = shared
        self._settings = settings
        self._fresh = fresh
        self._splits: dict[str, Images] = {}
        self._directory = results.DIRECTORY / "cifar10"
        self._directory.mkdir(parents=True, exist_ok=True)

    def stage(self, seed: int, name: str) -> dict[str, Any]:
        """Returns what a stage found: predictions as strings of digits, and seconds."""
        path = self._directory / f"seed{seed}_{name}.json"
        settings = dataclasses.asdict(self._settings)
        if path.exists() and not self._fresh:
            kept: dict[str, Any] = json.loads(path.read_text())
            if kept["settings"] == settings:
                return kept
        run: dict[str, Callable[[int, Path], dict[str, Classes]]]
        run = {"float": self._float, "ours": self._ours, "tfmot": self._tfmot}
        started = time.monotonic()
        predictions = run[name](seed, path.with_suffix(".tflite"))
        found = {
            "settings": settings,
            "seconds": round(time.monotonic() - started, 1),
            "predictions": {key: "".join(map(str, value)) for key, value in predictions.items()},
        }
        path.write_text(json.dumps(found, indent=2) + "\n")
        return found

    def labels(self) -> Classes:
        """Returns the classes of the test images."""
        return self._split("test").labels

    def pretrained_accuracy(self) -> float:
        """Returns the accuracy of the model before any fine-tuning."""
        return float(np.mean(self._in_keras(self._pretrained()) == self.labels()))

    def _float(self, seed: int, tflite: Path) -> dict[str, Classes]:
        from components.quantization import convert

        model = self._pretrained()
        self._fine_tune(model, seed, "float")
        chosen = next(batches(len(self._split("train").labels), _CALIBRATION_IMAGES, 1, seed))
        calibration = self._split("train").pixels[chosen].astype(np.float32)
        tflite.write_bytes(convert(model, representative_dataset=[calibration]))
        return {"float": self._in_keras(model), **self._in_integers(tflite, "PTQ")}

    def _ours(self, seed: int, tflite: Path) -> dict[str, Classes]:
        from components.quantization import convert, quantize_model

        quantized = quantize_model(self._pretrained())
        self._fine_tune(quantized, seed, "ours")
        tflite.write_bytes(convert(quantized))
        quantized.save_weights(tflite.with_suffix(".weights.h5"))
        return {"QAT in Keras": self._in_keras(quantized), **self._in_integers(tflite, "QAT")}

    def _tfmot(self, seed: int, tflite: Path) -> dict[str, Classes]:
        from infra.bench import stock_tfmot

        quantized = stock_tfmot.quantize_model(self._pretrained())
        self._fine_tune(quantized, seed, "tfmot")
        tflite.write_bytes(stock_tfmot.convert(quantized))
        return {"tfmot in Keras": self._in_keras(quantized), **self._in_integers(tflite, "tfmot")}

    def _pretrained(self) -> Any:
        import tf_keras

        from components.quantization.autograph import leave_libraries_alone

        leave_libraries_alone()
        return tf_keras.models.load_model(self._shared / _MODEL, compile=False)

    def _fine_tune(self, model: Any, seed: int, name: str) -> None:
        train = self._split("train")
        order = batches(len(train.labels), _BATCH_SIZE, self._settings.epochs, seed)
        what = f"seed {seed}, {name}"
        fine_tune(model, train.pixels, train.labels, order, learning_rate=_LEARNING_RATE, what=what)

    def _in_keras(self, model: Any) -> Classes:
        outputs = model.predict(self._split("test").pixels.astype(np.float32), batch_size=500, verbose=0)
        classes: Classes = np.argmax(outputs, axis=-1)
        return classes

    def _in_integers(self, tflite: Path, name: str) -> dict[str, Classes]:
        content, pixels = tflite.read_bytes(), self._split("test").pixels
        return {
            f"{name} int8": predicted_classes(content, pixels, "reference"),
            f"{name} int8, default kernels": predicted_classes(content, pixels, "default"),
        }

    def _split(self, name: str) -> Images:
        if name not in self._splits:
            pattern, count = {
                "train": (_TRAIN, self._settings.train_images),
                "test": (_TEST, self._settings.test_images),
            }[name]
            self._splits[name] = _read(sorted(map(str, self._shared.glob(pattern))), count)
        return self._splits[name]


def _read(files: list[str], count: int) -> Images:
    """Reads and decodes tf.Examples; a count of 0 stands for all."""
    import tensorflow as tf

    spec = {"image": tf.io.FixedLenFeature([], tf.string), "label": tf.io.FixedLenFeature([], tf.int64)}

    def parse(record: Any) -> tuple[Any, Any]:
        features = tf.io.parse_single_example(record, spec)
        return tf.ensure_shape(tf.io.decode_jpeg(features["image"], channels=3), [32, 32, 3]), features["label"]

    examples = tf.data.TFRecordDataset(files).take(count or -1).map(parse, num_parallel_calls=2).batch(1000)
    pixels, labels = zip(*examples.as_numpy_iterator(), strict=True)
    return Images(pixels=np.concatenate(pixels), labels=np.concatenate(labels))


def _named_predictions(stages: dict[str, dict[str, Any]]) -> dict[str, Classes]:
    return {
        name: np.array(list(digits), np.int64)
        for stage in stages.values()
        for name, digits in stage["predictions"].items()
    }


if __name__ == "__main__":
    main()
