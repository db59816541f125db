"""Converts a saved model to a directory that a device can use, and shows how that went."""

import dataclasses
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from rich.console import Console

from components.quantization.contract import HEAD_DIRECTORY, VECTORS_FILE
from components.quantization.input_shapes import InputShapes
from components.quantization.schemes import load_scheme
from pipelines import new_directory
from pipelines.progress import silent

if TYPE_CHECKING:
    from components.quantization.conversion.dense_function import DenseFunction
    from components.quantization.conversion.report import Conversion, ConversionReport


@dataclasses.dataclass(frozen=True, kw_only=True, slots=True)
class ConversionRequest:
    """What is converted, and how.

    Attributes:
      model: Path of a .keras or .h5 file, or of a SavedModel.
      output: The directory to write; it must not exist yet.
      scheme: Name of the scheme.
      target: Name of the target.
      io_dtypes: Types of inputs and outputs by name; of all by the name "".
      examples: Path of examples to calibrate with and to make golden vectors of; "" for none.
      calibration: Method that finds ranges from examples, or "auto" for the most accurate.
      eval_examples: Path of examples with labels that "auto" measures accuracy on; "" for none.
      label_key: Name of those labels.
      labels: Names of the classes, in the order of the output.
      cache: Directory where conversions are kept; None for nowhere.
      input_shapes: Shapes of inputs that have unknown dimensions, without the batch: by name, or of the only input.
      cut: Names of layers; what is behind them is left to the client. Empty to convert the whole model.
    """

    model: Path
    output: Path
    scheme: str = "full_int8"
    target: str = "edge_tpu"
    io_dtypes: Mapping[str, str] = dataclasses.field(default_factory=dict)
    examples: str = ""
    calibration: str = "min_max"
    eval_examples: str = ""
    label_key: str = "label"
    labels: tuple[str, ...] = ()
    cache: Path | None = None
    input_shapes: InputShapes = None
    cut: tuple[str, ...] = ()


def io_dtypes_of(texts: tuple[str, ...]) -> dict[str, str]:
    """Returns the types of inputs and outputs by name, out of texts such as "uint8" or "image=uint8".

    Raises:
      ValueError: If one is given twice.

    >>> io_dtypes_of(("image=uint8",))
    {'image': 'uint8'}
    """
    found: dict[str, str] = {}
    for text in texts:
        name, _, dtype = text.rpartition("=")
        if name in found:
            raise ValueError(f"--io-dtype {text}: got a second type for {name or 'all'}, expected one")
        found[name] = dtype
    if "" in found and len(found) > 1:
        raise ValueError("--io-dtype: got a type for all and types by name, expected one or the other")
    return found


def input_shapes_of(texts: tuple[str, ...]) -> InputShapes:
    """Returns the shapes of inputs by name, or that of the only one, out of texts such as "image=64,64,3".

    Raises:
      ValueError: If one is no shape, or is given twice.

    >>> input_shapes_of(("image=64,64,3",))
    {'image': (64, 64, 3)}
    """
    found: dict[str, tuple[int, ...]] = {}
    for text in texts:
        name, _, sizes = text.rpartition("=")
        if name in found:
            raise ValueError(f"--input-shape {text}: got a second shape for {name or 'the input'}, expected one")
        try:
            found[name] = tuple(int(size) for size in sizes.split(","))
        except ValueError:
            raise ValueError(
                f"--input-shape {text}: got something else than numbers, expected NAME=H,W,C without the batch"
            ) from None
    if "" in found and len(found) > 1:
        raise ValueError("--input-shape: got a shape without name and shapes by name, expected one or the other")
    return found.get("", found) if found else None


def read_labels(path: Path) -> tuple[str, ...]:
    """Returns the lines of a text file in UTF-8, with or without a byte order mark.

    Raises:
      ValueError: If it is of another encoding.
    """
    try:
        text = path.read_text(encoding="utf-8-sig")
    except UnicodeDecodeError as error:
        raise ValueError(
            f"--labels {path}: got a file that is not UTF-8, expected one class a line: {error}"
        ) from error
    # At newlines alone: str.splitlines ends a line at others, too, that a label may hold.
    return tuple(text.removesuffix("\n").split("\n")) if text else ()


def convert_and_show(request: ConversionRequest, console: Console) -> None:
    """Converts, writes the model with its contract, and shows what was made.

    Raises:
      ValueError: For a mistake in what was asked, or a model that cannot be converted; nothing is written then.
    """
    new_directory.require_new(request.output)
    if request.cut and request.eval_examples:
        raise ValueError(
            "--cut: got --eval-examples too, whose labels are for what is cut off; choose one --calibration yourself"
        )
    with console.status("loading TensorFlow and the model"), silent():
        function, head = _traced(request)
        _labels(request, function.outputs)
    examples = _examples(request, function.inputs)
    with console.status("converting"), silent():
        from components.quantization.conversion.convert import convert_with_report

        dtypes: Any = request.io_dtypes.get("", dict(request.io_dtypes)) or None
        made = convert_with_report(
            function,
            request.scheme,
            examples,
            request.target,
            dtypes,
            calibration=request.calibration,
            score=_score(request, function.inputs),
            cache_dir=request.cache,
        )
    with console.status("writing"), silent():
        tflite = _write(request, made, examples, head)
    _show(request, made.report, len(tflite), console)


def _show(request: ConversionRequest, report: "ConversionReport", size_bytes: int, console: Console) -> None:
    seconds = ", ".join(f"{step} {taken:.1f} s" for step, taken in report.seconds.items())
    calibrated = "all" if report.calibrated == ("*",) else ", ".join(report.calibrated) or "none"
    console.print(f"{request.output}: {size_bytes:,} bytes, scheme {request.scheme}, target {request.target}")
    console.print(f"{'from the cache; ' if report.cached else ''}{seconds}", soft_wrap=True)
    console.print(
        f"ranges calibrated: {calibrated}, from {report.examples} examples by {report.calibration or 'no method'}",
        soft_wrap=True,
    )
    for candidate in report.candidates:
        found = f"accuracy {candidate.score:.4f}" if candidate.score is not None else candidate.error
        console.print(f"calibration {candidate.method}: {found}", soft_wrap=True)
    for applied in report.rewrites:
        console.print(f"rewritten: {applied.op} {applied.tensor} -> {', '.join(applied.ops) or 'gone'}", soft_wrap=True)
    for name, dtype in report.io_dtypes.items():
        console.print(f"{name}: {dtype}")
    if request.cut:
        console.print(f"left to the client: {HEAD_DIRECTORY}, of {', '.join(request.cut)}", soft_wrap=True)


def _traced(request: ConversionRequest) -> "tuple[DenseFunction, Any]":
    """The model as conversion takes it, and what is cut off, or None; a SavedModel that is not cut as it is."""
    from components.quantization.conversion.dense_function import dense_function
    from components.quantization.surgery.cut import cut
    from components.quantization.surgery.fixed_shapes import fix_input_shapes
    from components.quantization.surgery.keras3 import load_model
    from components.quantization.surgery.prepare import prepare

    path = request.model
    if not path.exists():
        raise ValueError(f"{path}: got nothing there, expected a .keras or .h5 file or the directory of a SavedModel")
    if path.is_dir() and not request.cut:
        return dense_function(path, request.input_shapes), None
    model = fix_input_shapes(load_model(path), request.input_shapes)
    if not request.cut:
        return dense_function(prepare(model).model), None
    parts = cut(model, request.cut)
    return dense_function(prepare(parts.backbone).model), parts.head


def _examples(request: ConversionRequest, inputs: Mapping[str, Any]) -> list[dict[str, Any]] | None:
    if not request.examples:
        return None
    from components.quantization.conversion.representative_dataset import named_arrays
    from pipelines.example_arrays import batches, read_arrays

    return [named_arrays(batch, inputs, "examples") for batch in batches(read_arrays(request.examples, inputs))]


def _score(request: ConversionRequest, inputs: Mapping[str, Any]) -> Callable[[bytes], float] | None:
    if not request.eval_examples:
        return None
    from components.quantization.conversion import scoring
    from pipelines.example_arrays import batches, read_arrays

    arrays = read_arrays(request.eval_examples, inputs, request.label_key)
    labels = arrays.pop(request.label_key)
    return scoring.accuracy(batches(arrays), labels)


def _labels(request: ConversionRequest, outputs: Sequence[str]) -> dict[str, tuple[str, ...]]:
    from components.quantization.contract.device_files import labels_by_output

    return labels_by_output(request.labels, outputs)


def _write(request: ConversionRequest, made: "Conversion", examples: list[dict[str, Any]] | None, head: Any) -> bytes:
    from components.quantization import toolchain
    from components.quantization.contract.build import Knowledge
    from components.quantization.contract.device_files import deploy
    from components.quantization.contract.file_metadata import ModelIdentity
    from components.quantization.contract.golden import golden_outputs
    from components.quantization.contract.postprocessing import postprocessing, write_head
    from components.quantization.conversion import interface
    from components.quantization.conversion.deployed_audit import audit_deployed

    scheme = load_scheme(request.scheme)
    labels = _labels(request, tuple(interface.signature_of(made.tflite)[1]))
    identity = ModelIdentity(scheme=scheme.to_json(), labels=labels, versions=toolchain.versions())
    knowledge = Knowledge(labels=labels, postprocessing=None if head is None else postprocessing(head))
    with new_directory.writing(request.output) as partial:
        tflite = deploy(partial, made.tflite, identity, knowledge, examples[0] if examples else None)
        if head is not None:
            write_head(head, partial)
        (partial / "conversion.json").write_text(made.report.to_json())
        outputs = golden_outputs(partial / VECTORS_FILE)
        audit = audit_deployed(tflite, request.target, scheme, made.report.io_dtypes, outputs)
        (partial / "audit.json").write_text(audit.to_json())
    return tflite
