"""Conversion of quantization-aware models, ours against TensorFlow's: `python -m infra.bench.conversion`.

Each model is built with random weights, quantized, given ranges, and converted by `convert` and by stock
`TFLiteConverter.from_keras_model`, tracing included, each in a process of its own, which also tells the memory: the
peak of the process above what it held before, with the model built. Both results then answer the same random inputs.
"""

import ctypes
import gc
import json
import statistics
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import click

from infra.bench import results, stock_tfmot

MODELS = {"ResNet8": 32, "MobileNetV2": 224, "ResNet50": 224, "InceptionV3": 299}
_IMAGES = 20
_MIB = 2**20


@click.command()
@click.option("--model", "models", multiple=True, type=click.Choice(list(MODELS)), help="One of them; default: all.")
@click.option("--rounds", default=1, show_default=True, help="Conversions of each kind; medians are shown.")
def main(models: tuple[str, ...], rounds: int) -> None:
    """Times conversions, into build/bench/conversion.json."""
    rows = []
    for name in models or MODELS:
        runs = {how: [_in_a_process(name, how) for _ in range(rounds)] for how in ("stock", "ours")}
        seconds = {how: statistics.median(run["seconds"] for run in of) for how, of in runs.items()}
        memory = {how: max(run["peak_mib"] for run in of) for how, of in runs.items()}
        row = {
            "model": name,
            "float_mib": runs["ours"][0]["float_mib"],
            "seconds": seconds,
            "speedup": round(seconds["stock"] / seconds["ours"], 1),
            "peak_mib": memory,
            "equal_outputs": _equal(Path(runs["stock"][0]["file"]), Path(runs["ours"][0]["file"])),
            "audit_s": runs["ours"][0]["audit_s"],
        }
        rows.append(row)
        click.echo(json.dumps(row))
    header = (
        "model",
        "float MiB",
        "stock s",
        "ours s",
        "times faster",
        "stock MiB",
        "ours MiB",
        "outputs equal",
        "audit s",
    )
    cells = [
        (
            row["model"],
            f"{row['float_mib']:.0f}",
            f"{row['seconds']['stock']:.1f}",
            f"{row['seconds']['ours']:.1f}",
            row["speedup"],
            f"{row['peak_mib']['stock']:.0f}",
            f"{row['peak_mib']['ours']:.0f}",
            f"{row['equal_outputs']:.1%}",
            f"{row['audit_s']:.2f}",
        )
        for row in rows
    ]
    click.echo(results.markdown_table(header, cells))
    click.echo(results.write_result("conversion", {"models": rows, "rounds": rounds, "images": _IMAGES}))


def _in_a_process(name: str, how: str) -> dict[str, Any]:
    command = [sys.executable, "-W", "ignore", "-m", "infra.bench.conversion", "--one", name, how]
    output = subprocess.run(command, check=True, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True).stdout
    found: dict[str, Any] = json.loads(output.splitlines()[-1])
    return found


def _one(name: str, how: str) -> None:
    """Converts once; prints what it took as one line of JSON."""
    import numpy as np
    import tf_keras

    from components.quantization import audit, convert, quantize_model
    from components.quantization.qat.calibration import calibrate
    from infra.bench.qat_steps import resnet8

    pixels = MODELS[name]
    tf_keras.utils.set_random_seed(1)
    build = getattr(tf_keras.applications, name, None)
    model = build(weights=None, input_shape=(pixels, pixels, 3)) if build else resnet8()
    quantized = quantize_model(model)
    images = np.random.default_rng(1).random((4, pixels, pixels, 3), np.float32)
    calibrate(quantized, [{quantized.input_names[0]: images}])
    del model
    gc.collect()
    ctypes.CDLL(None).malloc_trim(0)  # what training left is not at the disposal of the conversion
    Path("/proc/self/clear_refs").write_text("5")  # the peak begins anew
    before = _status("VmRSS")
    started = time.perf_counter()
    tflite = convert(quantized) if how == "ours" else stock_tfmot.convert(quantized)
    seconds = time.perf_counter() - started
    peak = _status("VmHWM") - before
    path = results.DIRECTORY / "conversion" / f"{name}_{how}.tflite"
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(tflite)
    started = time.perf_counter()
    audit(tflite, "edge_tpu")
    found = {"seconds": seconds, "peak_mib": peak / _MIB, "audit_s": time.perf_counter() - started, "file": str(path)}
    found["float_mib"] = sum(weight.shape.num_elements() * 4 for weight in quantized.weights) / _MIB
    print(json.dumps(found))


def _status(field: str) -> int:
    """A size of this process in bytes, out of /proc."""
    (line,) = [line for line in Path("/proc/self/status").read_text().splitlines() if line.startswith(field)]
    return int(line.split()[1]) * 1024


def _equal(first: Path, second: Path) -> float:
    """The share of output values that two models have in common, for random images."""
    import numpy as np
    import tensorflow as tf

    answers = []
    for path in (first, second):
        interpreter = tf.lite.Interpreter(model_path=str(path), num_threads=2)
        interpreter.allocate_tensors()
        (given,), (returned,) = interpreter.get_input_details(), interpreter.get_output_details()
        random = np.random.default_rng(2)
        for _ in range(_IMAGES):
            interpreter.set_tensor(given["index"], random.integers(-128, 128, given["shape"], dtype=np.int8))
            interpreter.invoke()
            answers.append(interpreter.get_tensor(returned["index"]).ravel())
    return float(np.mean(np.array(answers[:_IMAGES]) == np.array(answers[_IMAGES:])))


if __name__ == "__main__":
    if sys.argv[1:2] == ["--one"]:
        _one(*sys.argv[2:])
    else:
        main()
