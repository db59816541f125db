"""Nine architectures of keras.applications, integers against fake quantization: `python -m infra.bench.architectures`.

Each is built for 10 classes at a low resolution, with random weights as in `conditioned_weights`, planned, quantized,
trained for two steps, converted, and run in TFLite's interpreter on the random images of those steps. What counts is
the ratio in dB of signal to difference between the integer model and the quantization-aware one at inference: of the
probabilities, and of the logits, which are made an output of the model too. Probabilities close to 1/10 have a high
ratio even where they tell little; logits do not.

Two models that round differently, each as far from the float model, differ by at most 3 dB more than that. The ratio
of the quantization-aware model to the float one therefore tells what can be asked of the other.
"""

import dataclasses
import time
from collections.abc import Sequence
from typing import Any

import click
import numpy as np
import numpy.typing as npt

from infra.bench import results

# In pixels: two positions or more are left of each side where the last layers average.
PIXELS = {
    "MobileNet": 64,
    "MobileNetV2": 64,
    "MobileNetV3Small": 64,
    "ResNet50": 64,
    "ResNet50V2": 64,
    "NASNetMobile": 64,
    "EfficientNetB0": 64,
    "DenseNet121": 64,
    "InceptionV3": 128,
}
_CLASSES = 10
_IMAGES = 16
_STEPS = 2
_LEARNING_RATE = 1e-6

Array = npt.NDArray[Any]


@dataclasses.dataclass(frozen=True, kw_only=True, slots=True)
class Figures:
    """What was measured of an architecture.

    Attributes:
      architecture: Its name in keras.applications.
      pixels: Height and width of the images.
      ops: How many ops the integer model has.
      integer_only: Whether none of them computes in floats.
      coverage: Share of the parameters, 0..1, that were trained as integers.
      blockers: Names of layers that prevent an integer model.
      logits_db: Signal to difference between the integer and the quantization-aware model, of the logits.
      probabilities_db: Of the probabilities.
      logits_to_float_db: Signal to difference between the quantization-aware model and the float one, of the logits.
      seconds: By step.
    """

    architecture: str
    pixels: int
    ops: int
    integer_only: bool
    coverage: float
    blockers: tuple[str, ...]
    logits_db: float
    probabilities_db: float
    logits_to_float_db: float
    seconds: dict[str, float]


@click.command()
@click.argument("architectures", nargs=-1)
def main(architectures: Sequence[str]) -> None:
    """Measures the given architectures, or all."""
    found = [measure(name) for name in architectures or PIXELS]
    header = ("architecture", "pixels", "ops", "logits dB", "probabilities dB", "QAT to float, logits dB", "s")
    rows = (
        (f.architecture, f.pixels, f.ops, *_rounded(f), f"{sum(f.seconds.values()):.0f}")
        for f in sorted(found, key=lambda figures: list(PIXELS).index(figures.architecture))
    )
    click.echo(results.markdown_table(header, rows))
    click.echo(results.write_result("architectures", {"architectures": [dataclasses.asdict(f) for f in found]}))


def _rounded(figures: Figures) -> list[str]:
    return [f"{db:.1f}" for db in (figures.logits_db, figures.probabilities_db, figures.logits_to_float_db)]


def measure(architecture: str, seed: int = 1) -> Figures:
    """Takes an architecture to integers and compares.

    Args:
      architecture: Its name, a key of PIXELS.
      seed: Seed of weights and images.

    Raises:
      NotIntegerOnlyError: If it cannot be converted to integers alone.
      ValueError: If it cannot be quantized.
    """
    from components.quantization import audit, convert, plan, quantize_model

    clock = _Clock()
    model, images = build(architecture, seed)
    clock.lap("build")
    planned = plan(model)
    clock.lap("plan")
    quantized = quantize_model(model)
    clock.lap("quantize")
    _train(quantized, images, seed)
    clock.lap("train")
    tflite = convert(quantized)
    clock.lap("convert")
    proof = audit(tflite)
    integers = run(tflite, images, quantized.output_names)
    trained = [np.asarray(values, np.float64) for values in quantized(images, training=False)]
    logits = np.asarray(model(images, training=False)[0], np.float64)
    clock.lap("run")
    logits_db, probabilities_db = (sqnr_db(a, b) for a, b in zip(trained, integers, strict=True))
    return Figures(
        architecture=architecture,
        pixels=images.shape[1],
        ops=proof.ops,
        integer_only=proof.integer_only,
        coverage=planned.coverage,
        blockers=tuple(layer.name for layer in planned.blockers),
        logits_db=logits_db,
        probabilities_db=probabilities_db,
        logits_to_float_db=sqnr_db(logits, trained[0]),
        seconds=clock.seconds,
    )


def build(architecture: str, seed: int) -> tuple[Any, npt.NDArray[np.float32]]:
    """Returns the float model, with logits and probabilities as outputs, and images of what it takes as pixels."""
    import tf_keras

    from infra.bench.conditioned_weights import condition

    tf_keras.backend.clear_session()
    tf_keras.utils.set_random_seed(seed)
    pixels = PIXELS[architecture]
    application = getattr(tf_keras.applications, architecture)
    body = application(weights=None, input_shape=(pixels, pixels, 3), classes=_CLASSES, classifier_activation=None)
    logits = body.output
    model = tf_keras.Model(body.input, [logits, tf_keras.layers.Softmax(name="probabilities")(logits)])
    rescales = any(isinstance(layer, tf_keras.layers.Rescaling) for layer in model.layers)
    images = random_images(pixels, seed) * (255.0 if rescales else 2.0) - (0.0 if rescales else 1.0)
    condition(model, images)
    return model, images


def random_images(pixels: int, seed: int) -> npt.NDArray[np.float32]:
    """Returns images, (examples, pixels, pixels, 3) of 0..1: half a smooth pattern of 4x4 colours, half noise."""
    import tensorflow as tf

    random = np.random.default_rng(seed)
    coarse = tf.image.resize(random.uniform(size=(_IMAGES, 4, 4, 3)), (pixels, pixels), "bilinear").numpy()
    images: npt.NDArray[np.float32] = (coarse + random.uniform(size=(_IMAGES, pixels, pixels, 3))).astype(np.float32)
    return images / 2


def _train(model: Any, images: Array, seed: int) -> None:
    import tf_keras

    labels = np.random.default_rng(seed).integers(0, _CLASSES, _IMAGES)
    losses = [tf_keras.losses.SparseCategoricalCrossentropy(from_logits=True), None]
    # Two steps are done before a function of so many layers is traced.
    model.compile(tf_keras.optimizers.legacy.SGD(_LEARNING_RATE), losses, run_eagerly=True)
    for _ in range(_STEPS):
        model.train_on_batch(images, [labels, labels])


def run(tflite: bytes, images: Array, outputs: Sequence[str]) -> list[Array]:
    """Returns the real values of the outputs of an integer model, by the interpreter as it comes."""
    import tensorflow as tf

    interpreter = tf.lite.Interpreter(model_content=tflite, num_threads=1)
    interpreter.allocate_tensors()
    runner = interpreter.get_signature_runner()
    ((name, fed),) = runner.get_input_details().items()
    scale, zero_point = fed["quantization"]
    steps = np.clip(np.rint(images / np.float32(scale)) + zero_point, -128, 127).astype(np.int8)
    rows = [runner(**{name: steps[index : index + 1]}) for index in range(len(images))]
    read = runner.get_output_details()
    found = []
    for output in outputs:
        scale, zero_point = read[output]["quantization"]
        found.append((np.concatenate([row[output] for row in rows]).astype(np.float64) - zero_point) * scale)
    return found


def sqnr_db(signal: Array, noisy: Array) -> float:
    """Returns the ratio of a signal to its difference from another, over all examples, in dB."""
    return float(10.0 * np.log10(np.sum(signal**2) / np.sum((signal - noisy) ** 2)))


class _Clock:
    """Seconds from lap to lap."""

    def __init__(self) -> None:
        self.seconds: dict[str, float] = {}
        self._last = time.monotonic()

    def lap(self, name: str) -> None:
        now = time.monotonic()
        self.seconds[name] = round(now - self._last, 2)
        self._last = now


if __name__ == "__main__":
    main()
