"""Times a training step in floats, with our fake quantization and with tfmot's, in turn: `make bench-qat`."""

import statistics
import time
from typing import Any

import click

from infra.bench import results


@click.command()
@click.option("--rounds", default=40, show_default=True, help="How often each model is timed; medians are reported.")
@click.option("--steps", default=5, show_default=True, help="Steps of a round.")
def main(rounds: int, steps: int) -> None:
    """Times a training step of ResNet8 for CIFAR-10 on random images, interleaved, and the quantization itself."""
    import numpy as np
    import tf_keras

    from components.quantization.autograph import leave_libraries_alone

    leave_libraries_alone()
    tf_keras.utils.set_random_seed(1)
    float_model = resnet8()
    models, quantize_s = _models(float_model)
    generator = np.random.default_rng(1)
    found = {}
    for batch_size in (128, 32):
        images = generator.uniform(0, 255, (batch_size, 32, 32, 3)).astype(np.float32)
        labels = generator.integers(0, 10, batch_size)
        times: dict[str, list[float]] = {name: [] for name in models}
        for number in range(rounds + 1):
            for name, model in models.items():
                milliseconds = _time_steps(model, images, labels, 3 if number == 0 else steps)
                if number:  # the first round traces
                    times[name].append(milliseconds)
        medians = {name: statistics.median(values) for name, values in times.items()}
        ratios = {name: _ratio(values, times["float"]) for name, values in times.items()}
        found[f"batch_{batch_size}"] = {"ms_per_step": medians, "ratio_to_float": ratios, "rounds": times}
        click.echo(f"batch {batch_size}: " + ", ".join(f"{n} {medians[n]:.1f} ms ({ratios[n]:.2f}x)" for n in medians))
    click.echo("quantization of the model: " + ", ".join(f"{name} {value:.1f} s" for name, value in quantize_s.items()))
    click.echo(str(results.write_result("qat_steps", {**found, "quantize_s": quantize_s})))


def _models(float_model: Any) -> tuple[dict[str, Any], dict[str, float]]:
    """The float model, ours and tfmot's, compiled, and the seconds that both quantizations took."""
    from components.quantization import quantize_model
    from infra.bench import stock_tfmot

    models, seconds = {"float": float_model}, {}
    for name, quantize in (("ours", quantize_model), ("tfmot", stock_tfmot.quantize_model)):
        started = time.monotonic()
        models[name] = quantize(float_model)
        seconds[name] = round(time.monotonic() - started, 2)
    for model in models.values():
        model.compile("adam", "sparse_categorical_crossentropy")
    return models, seconds


def _ratio(times: list[float], of_float: list[float]) -> float:
    """The median over rounds: what disturbs the machine for longer than a round disturbs both."""
    return round(statistics.median(time / float_time for time, float_time in zip(times, of_float, strict=True)), 3)


def _time_steps(model: Any, images: Any, labels: Any, steps: int) -> float:
    """Milliseconds of a step."""
    started = time.monotonic()
    for _ in range(steps):
        model.train_on_batch(images, labels)
    return (time.monotonic() - started) / steps * 1e3


def resnet8() -> Any:
    """ResNet8 of MLPerf Tiny, 78,666 parameters: https://github.com/mlcommons/tiny ."""
    import tf_keras

    layers = tf_keras.layers

    def block(x: Any, filters: int, strides: int) -> Any:
        y = layers.Conv2D(filters, 3, strides, "same")(x)
        y = layers.ReLU()(layers.BatchNormalization()(y))
        y = layers.BatchNormalization()(layers.Conv2D(filters, 3, padding="same")(y))
        if strides > 1:
            x = layers.Conv2D(filters, 1, strides, "same")(x)
        return layers.ReLU()(layers.Add()([x, y]))

    inputs = tf_keras.Input((32, 32, 3), name="image")
    x = layers.ReLU()(layers.BatchNormalization()(layers.Conv2D(16, 3, padding="same")(inputs)))
    for filters, strides in ((16, 1), (32, 2), (64, 2)):
        x = block(x, filters, strides)
    x = layers.Flatten()(layers.AveragePooling2D(8)(x))
    return tf_keras.Model(inputs, layers.Dense(10, activation="softmax", name="probabilities")(x), name="resnet8")


if __name__ == "__main__":
    main()
