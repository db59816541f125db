"""Shows where the accuracy of an integer model went: between floats, fake quantization and integers, layer by layer."""

import dataclasses
from pathlib import Path
from typing import Any

from rich.console import Console

from pipelines.progress import silent


@dataclasses.dataclass(frozen=True, kw_only=True, slots=True)
class AttributionRequest:
    """What is compared.

    Attributes:
      tflite: The integer model.
      float_model: Its float parent, a .keras or .h5 file or a SavedModel of Keras.
      qat_model: The quantization-aware model in between, a SavedModel as QuantizeTrainer exports it; None for none.
      examples: Path of examples, as `read_arrays` takes them.
      label_key: Name of their labels, which are classes; "" for none.
      output: Directory for attribution.json, attribution.svg and attribution.txt; None for none.
      sensitivity: Whether to quantize one layer at a time, too.
    """

    tflite: Path
    float_model: Path
    qat_model: Path | None
    examples: str
    label_key: str = ""
    output: Path | None = None
    sensitivity: bool = False


def attribute_and_show(request: AttributionRequest, console: Console) -> None:
    """Measures, shows tables, and writes them, JSON and a picture.

    Raises:
      ValueError: If a file is missing, or models and examples do not fit each other.
    """
    missing = [path for path in (request.tflite, request.float_model, request.qat_model) if path and not path.exists()]
    if missing:
        raise ValueError(f"{', '.join(map(str, missing))}: got nothing there, expected models")
    if request.sensitivity and request.qat_model is None:
        raise ValueError(
            "--sensitivity: got no --qat-model, expected the model whose layers are quantized one at a time"
        )
    with console.status("measuring"), silent():
        from components.quantization.attribution.attribute import AttributionOptions, attribute
        from components.quantization.attribution.saved_models import write_files
        from components.quantization.qat.export import load_quantized_model
        from components.quantization.surgery.keras3 import load_model

        tflite = request.tflite.read_bytes()
        float_model = _of_known_shapes(load_model(request.float_model), tflite)
        qat_model = load_quantized_model(request.qat_model) if request.qat_model else None
        metric = accuracy if request.label_key else None
        options = AttributionOptions(metric=metric, sensitivity=request.sensitivity)
        found = attribute(float_model, qat_model, tflite, _batches(request, float_model), options)
    console.print(str(found), soft_wrap=True, markup=False)
    if request.output is not None:
        request.output.mkdir(parents=True, exist_ok=True)
        write_files(found, request.output)


def _of_known_shapes(model: Any, tflite: bytes) -> Any:
    """The model for inputs of the sizes that it was converted for, where it takes any."""
    from components.quantization.conversion import flatbuffer
    from components.quantization.surgery.fixed_shapes import fix_input_shapes

    if all(None not in tensor.shape[1:] for tensor in model.inputs):
        return model
    graph = flatbuffer.read_subgraphs(tflite)[0]
    shapes = {graph.tensors[index].name: graph.tensors[index].shape[1:] for index in graph.inputs}
    return fix_input_shapes(model, shapes if len(shapes) > 1 else next(iter(shapes.values()), None))


def accuracy(labels: Any, predictions: Any) -> Any:
    """Returns, for each example, whether its class is predicted."""
    if isinstance(predictions, dict):
        raise ValueError(f"--label-key: got labels for outputs {', '.join(predictions)}, expected one output")
    predicted = predictions.argmax(-1) if predictions.shape[-1] > 1 else predictions[..., 0] > 0.5
    return (predicted == labels.reshape(predicted.shape)).astype(float)


def _batches(request: AttributionRequest, model: Any) -> list[Any]:
    import tensorflow as tf

    from pipelines.example_arrays import batches, read_arrays

    features = {
        name: tf.TensorSpec(tensor.shape, tensor.dtype)
        for name, tensor in zip(model.input_names, model.inputs, strict=True)
    }
    arrays = batches(read_arrays(request.examples, features, request.label_key))
    return [(batch, batch.pop(request.label_key)) if request.label_key else batch for batch in arrays]
