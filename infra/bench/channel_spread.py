"""Depthwise channels of very different ranges, by our quantizer and by tfmot's: `python -m infra.bench.channel_spread`.

A small MobileNet-like net is trained on the handwritten digits inside scikit-learn. Then the channels of each depthwise
kernel are scaled by factors from 1 to 1,000, in a way that leaves what the float model computes as it is:

- "normalization": the normalization behind takes the factors out again, as it does in MobileNets whose channels differ
  in range before it. The folded kernel, and so the integer model after training, is the same as without a spread: a
  quantizer with one scale for each channel does not notice, one with a single scale rounds the small channels to 0.
- "next layer": gamma and beta scale channels down, the 1x1 convolution behind scales them up. Here the folded kernel
  and the activations are spread; those have one scale in an integer model, whoever trains it.

Both quantizers fine-tune on the same batches.
"""

import dataclasses
import os
from collections.abc import Callable
from typing import Any

import click
import numpy as np
import numpy.typing as npt

from infra.bench import results
from infra.bench.fine_tuning import batches, fine_tune
from infra.bench.integer_predictions import predicted_classes

SPREAD = 1000.0
VARIANTS = ("none", "normalization", "next layer")
_BATCH_SIZE = 32
_TESTED = 600
_LEARNING_RATES = {"float": 1e-3, "fine-tuning": 1e-4}
_MOMENTUM = 0.9  # of the moving averages: an epoch has few steps
# Filters of the 1x1 convolutions and strides of the depthwise ones.
_BLOCKS = ((32, 1), (64, 2), (64, 1), (96, 1))
# How far the outputs of the float model may move: float32 arithmetic in another order.
_TOLERANCE = 1e-3


@dataclasses.dataclass(frozen=True, kw_only=True, slots=True)
class Digits:
    """The handwritten digits, split.

    Attributes:
      train_images: float32 of shape (images, 8, 8, 1), 0..1.
      train_labels: Classes, (images,).
      test_images: As above, other images.
      test_labels: Their classes.
    """

    train_images: npt.NDArray[np.float32]
    train_labels: npt.NDArray[np.int64]
    test_images: npt.NDArray[np.float32]
    test_labels: npt.NDArray[np.int64]


@dataclasses.dataclass(frozen=True, kw_only=True, slots=True)
class Quantized:
    """What came of one quantizer.

    Attributes:
      qat_accuracy: Accuracy of the quantization-aware model in Keras, 0..1.
      int8_accuracy: That of the integer model, with the reference kernels.
      agreement: Share of test images for which both predict the same class.
      scales: By layer, how many scales its weights have in training and in the .tflite.
    """

    qat_accuracy: float
    int8_accuracy: float
    agreement: float
    scales: dict[str, tuple[int, int]]


@click.command()
@click.option("--seed", "seeds", type=int, multiple=True, default=(1, 2, 3), show_default=True, help="Once for each.")
@click.option("--float-epochs", default=40, show_default=True, help="Epochs of float training.")
@click.option("--epochs", default=5, show_default=True, help="Epochs of fine-tuning, for each quantizer.")
def main(seeds: tuple[int, ...], float_epochs: int, epochs: int) -> None:
    """Accuracy of a net whose depthwise channels differ in range by 1:1,000: by our quantizer and by tfmot's."""
    os.environ.setdefault("TF_USE_LEGACY_KERAS", "1")  # for tfmot, before TensorFlow is imported
    rows, found = [], []
    for seed in seeds:
        digits = read_digits(seed)
        model = trained(digits, seed, float_epochs)
        for variant in VARIANTS:
            spread_model = spread(model, variant, seed)
            quantized = {
                "ours": fine_tuned(spread_model, digits, seed, epochs),
                "tfmot": _by_tfmot(spread_model, digits, seed, epochs),
            }
            floats = {"float_accuracy": accuracy_of(spread_model, digits)}
            _fine_tune(spread_model, digits, seed, epochs, "fine-tuning")
            floats["float_accuracy_fine_tuned"] = accuracy_of(spread_model, digits)
            row = _row(variant, seed, tuple(floats.values()), quantized)
            click.echo(", ".join(f"{name} {value}" for name, value in zip(_HEADER, row, strict=True)))
            rows.append(row)
            by_quantizer = {name: dataclasses.asdict(value) for name, value in quantized.items()}
            found.append({"variant": variant, "seed": seed, **floats, **by_quantizer})
    rows.sort(key=lambda row: VARIANTS.index(row[0]))
    click.echo(f"\n{results.markdown_table(_HEADER, rows)}\n")
    path = results.write_result("channel_spread", {"float_epochs": float_epochs, "epochs": epochs, "runs": found})
    click.echo(str(path))


_HEADER = (
    *("spread", "seed", "float", "float, fine-tuned", "our QAT", "our int8", "tfmot QAT", "tfmot int8"),
    *("our scales, training / .tflite", "tfmot scales"),
)


def _row(variant: str, seed: int, floats: tuple[float, ...], quantized: dict[str, Quantized]) -> tuple[str, ...]:
    accuracies = list(floats)
    for each in quantized.values():
        accuracies += [each.qat_accuracy, each.int8_accuracy]
    scales = []
    for each in quantized.values():
        sides = [counts for name, counts in each.scales.items() if name.startswith("depthwise")]
        scales.append(" / ".join(", ".join(str(count) for count in side) for side in zip(*sides, strict=True)))
    return (variant, str(seed), *(f"{100 * value:.2f} %" for value in accuracies), *scales)


def read_digits(seed: int) -> Digits:
    """Returns the 1,797 digits inside scikit-learn, 600 of them for testing."""
    from sklearn.datasets import load_digits

    images, labels = load_digits(return_X_y=True)
    order = np.random.default_rng(seed).permutation(len(labels))
    images = (images[order] / 16.0).reshape(-1, 8, 8, 1).astype(np.float32)
    labels = labels[order].astype(np.int64)
    return Digits(
        train_images=images[_TESTED:],
        train_labels=labels[_TESTED:],
        test_images=images[:_TESTED],
        test_labels=labels[:_TESTED],
    )


def mobilenet_like() -> Any:
    """Returns a convolution and four depthwise separable ones, all normalized: about 15,000 parameters.

    Activations are ReLU6, behind depthwise convolutions ReLU, so that the scale of a channel can pass.
    """
    import tf_keras

    layers = tf_keras.layers

    def normalized(x: Any, name: str, ceiling: float | None = 6.0) -> Any:
        x = layers.BatchNormalization(momentum=_MOMENTUM, name=f"{name}_normalization")(x)
        return layers.ReLU(ceiling, name=f"{name}_relu")(x)

    inputs = tf_keras.Input((8, 8, 1), name="image")
    x = layers.Conv2D(16, 3, padding="same", use_bias=False, name="conv")(inputs)
    x = normalized(x, "conv")
    for index, (filters, strides) in enumerate(_BLOCKS):
        name = f"depthwise{index}"
        x = layers.DepthwiseConv2D(3, strides, padding="same", use_bias=False, name=name)(x)
        x = normalized(x, name, ceiling=None)
        x = layers.Conv2D(filters, 1, use_bias=False, name=f"pointwise{index}")(x)
        x = normalized(x, f"pointwise{index}")
    x = layers.GlobalAveragePooling2D(name="pool")(x)
    return tf_keras.Model(inputs, layers.Dense(10, activation="softmax", name="probabilities")(x), name="mobilenet")


def trained(digits: Digits, seed: int, epochs: int) -> Any:
    """Returns the net, trained in floats."""
    import tf_keras

    from components.quantization.autograph import leave_libraries_alone

    leave_libraries_alone()
    tf_keras.utils.set_random_seed(seed)
    model = mobilenet_like()
    _fine_tune(model, digits, seed, epochs, "float")
    return model


def spread(model: Any, variant: str, seed: int) -> Any:
    """Returns a copy whose depthwise channels differ in range by 1:1,000, and which computes the same.

    Args:
      model: The net, trained.
      variant: One of VARIANTS.
      seed: Decides which channel has which factor; they are equally far apart on a scale of logarithms.

    Raises:
      ValueError: If the copy computes anything else.
    """
    import tf_keras

    copy = tf_keras.models.clone_model(model)
    copy.set_weights(model.get_weights())
    generator = np.random.default_rng(seed)
    apply = {"none": _keep, "normalization": _spread_by_normalization, "next layer": _spread_by_next_layer}[variant]
    for index in range(len(_BLOCKS)):
        channels = copy.get_layer(f"depthwise{index}").depthwise_kernel.shape[2]
        apply(copy, index, generator.permutation(np.geomspace(1.0, SPREAD, channels)).astype(np.float32))
    images = read_digits(seed).test_images
    moved = float(np.max(np.abs(copy(images).numpy() - model(images).numpy())))
    if moved > _TOLERANCE:
        raise ValueError(f"spread {variant!r}: outputs of the float model moved by {moved:g}, expected the same")
    return copy


def _keep(model: Any, index: int, factors: npt.NDArray[np.float32]) -> None:
    del model, index, factors


def _spread_by_normalization(model: Any, index: int, factors: npt.NDArray[np.float32]) -> None:
    kernel = model.get_layer(f"depthwise{index}").depthwise_kernel
    normalization = model.get_layer(f"depthwise{index}_normalization")
    kernel.assign(kernel * factors[:, None])
    normalization.moving_mean.assign(normalization.moving_mean * factors)
    epsilon = normalization.epsilon
    normalization.moving_variance.assign((normalization.moving_variance + epsilon) * factors**2 - epsilon)


def _spread_by_next_layer(model: Any, index: int, factors: npt.NDArray[np.float32]) -> None:
    normalization = model.get_layer(f"depthwise{index}_normalization")
    normalization.gamma.assign(normalization.gamma / factors)
    normalization.beta.assign(normalization.beta / factors)
    kernel = model.get_layer(f"pointwise{index}").kernel
    kernel.assign(kernel * factors[:, None])


def fine_tuned(model: Any, digits: Digits, seed: int, epochs: int) -> Quantized:
    """Quantizes a float model with ours, fine-tunes and converts it, and measures both."""
    from components.quantization import convert, quantize_model
    from components.quantization.qat.layers import QuantizedWeights

    quantized = quantize_model(model)
    _fine_tune(quantized, digits, seed, epochs, "fine-tuning")
    wrappers = [layer for layer in quantized.layers if isinstance(layer, QuantizedWeights)]
    in_training = {wrapper.layer.name: wrapper.scale_count() for wrapper in wrappers}
    return _measured(quantized, digits, convert, in_training)


def _by_tfmot(model: Any, digits: Digits, seed: int, epochs: int) -> Quantized:
    from infra.bench import stock_tfmot

    quantized = stock_tfmot.quantize_model(model)
    _fine_tune(quantized, digits, seed, epochs, "fine-tuning")
    return _measured(quantized, digits, stock_tfmot.convert, stock_tfmot.scale_counts(quantized))


def _fine_tune(model: Any, digits: Digits, seed: int, epochs: int, loop: str) -> None:
    order = batches(len(digits.train_labels), _BATCH_SIZE, epochs, seed)
    fine_tune(model, digits.train_images, digits.train_labels, order, learning_rate=_LEARNING_RATES[loop])


def _measured(
    quantized: Any, digits: Digits, convert: Callable[[Any], bytes], in_training: dict[str, int]
) -> Quantized:
    from components.quantization.qat.parity import weight_scales

    tflite = convert(quantized)
    in_keras = np.argmax(quantized.predict(digits.test_images, verbose=0), axis=-1)
    in_integers = predicted_classes(tflite, digits.test_images, "reference")
    # Layers and weighted ops are in the same order, and one for one: the net is a chain.
    in_file = (weights.scales for weights in weight_scales(tflite))
    return Quantized(
        qat_accuracy=float(np.mean(in_keras == digits.test_labels)),
        int8_accuracy=float(np.mean(in_integers == digits.test_labels)),
        agreement=float(np.mean(in_keras == in_integers)),
        scales={name: (count, scales) for (name, count), scales in zip(in_training.items(), in_file, strict=True)},
    )


def accuracy_of(model: Any, digits: Digits) -> float:
    """Returns the accuracy of a model in Keras on the test images, 0..1."""
    classes = np.argmax(model.predict(digits.test_images, verbose=0), axis=-1)
    return float(np.mean(classes == digits.test_labels))


if __name__ == "__main__":
    main()
