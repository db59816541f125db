"""The commands that take a model, not a pipeline: inspect, convert, compile-tflite, attribute, selftest."""

import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click
from rich.console import Console

if TYPE_CHECKING:
    from components.quantization.qat.plan import Policy


@click.command()
@click.argument("source", metavar="CONFIG|MODEL|TFLITE")
@click.option("--scheme", help="Quantization scheme; default: the config's, for a saved model full_int8.")
@click.option("--target", help="Where it will run; default: the config's, for a saved model edge_tpu.")
@click.option(
    "--untrainable",
    type=click.Choice(["calibrate", "fail"]),
    help="What becomes of layers that cannot be trained; default: as the config's training says, else calibrate.",
)
@click.option(
    "--option",
    "options",
    multiple=True,
    metavar="NAME=VALUE",
    help="Of a .tflite file: an option of the target, such as compiler_version=14.1 or api_level=29.",
)
@click.option(
    "--min-mapped-macs",
    type=click.FloatRange(0.0, 1.0),
    help="Of a .tflite file: the least share of the multiplications that the target must run.",
)
@click.option("--json", "as_json", is_flag=True, help="Of a .tflite file: write mapping, report and audit as JSON.")
def inspect(
    source: str,
    scheme: str | None,
    target: str | None,
    untrainable: "Policy | None",
    options: tuple[str, ...],
    min_mapped_macs: float | None,
    as_json: bool,
) -> None:
    """Shows what quantization will do to every layer of a model, and which of its ops the target will run.

    Of a .tflite file, from wherever: where each op runs and why, multiplications, parameters and memory, the first op
    that is not on the target and what to change; and whether the file is integer-only, numerically sound and ready for
    the target. Nothing is compiled, and TensorFlow is not needed for it.

    The model is that of the config CONFIG, or MODEL: a .keras or .h5 file, or the directory of a SavedModel, of either
    Keras. Nothing is trained.

    Exit status: 0 if nothing stands in the way, 1 if something does or less than --min-mapped-macs is on the target, 2
    for a mistake in what was asked, a file that is no model among them.
    """
    if is_tflite(source):
        from pipelines.file_inspection import FileRequest, inspect_and_show_file, options_of

        if scheme is not None or untrainable is not None:
            raise ValueError(
                f"{source}: got --scheme or --untrainable, which are for a model; a .tflite file is converted"
            )
        request = FileRequest(
            source=source,
            target="edge_tpu" if target is None else target,
            options=options_of(options),
            min_mapped_macs=min_mapped_macs,
            as_json=as_json,
        )
        sys.exit(inspect_and_show_file(request, Console(highlight=False)))
    if options or min_mapped_macs is not None or as_json:
        raise ValueError(
            f"{source}: got --option, --min-mapped-macs or --json, which are for a .tflite file; leave them out"
        )
    from pipelines.inspection import inspect_and_show, subject_of

    sys.exit(inspect_and_show(subject_of(source, scheme, target, untrainable), Console(highlight=False)))


@click.command()
@click.argument("model", type=click.Path(path_type=Path))
@click.option("-o", "--output", type=click.Path(path_type=Path), required=True, help="Directory to write; a new one.")
@click.option("--scheme", default="full_int8", show_default=True, help="Quantization scheme.")
@click.option("--target", default="edge_tpu", show_default=True, help="Where it will run.")
@click.option(
    "--io-dtype", "io_dtypes", multiple=True, help="Type of inputs and outputs: of all, or of one, as image=uint8."
)
@click.option(
    "--input-shape",
    "input_shapes",
    multiple=True,
    metavar="NAME=H,W,C",
    help="Shape, without the batch, of an input whose dimensions the model leaves unknown.",
)
@click.option("--cut", multiple=True, metavar="LAYER", help="Leave what is behind this layer to the client.")
@click.option(
    "--examples", default="", help="Examples to calibrate with: an .npz file of arrays by input name, or TFRecords."
)
@click.option("--calibration", default="min_max", show_default=True, help="How ranges are found, or auto.")
@click.option("--eval-examples", default="", help="Examples with labels that --calibration auto measures accuracy on.")
@click.option("--label-key", default="label", show_default=True, help="Name of these labels.")
@click.option(
    "--labels",
    type=click.Path(path_type=Path, exists=True, dir_okay=False),
    help="Text file of the classes, one a line.",
)
@click.option(
    "--cache", type=click.Path(path_type=Path), help="Directory where conversions are kept for the next time."
)
def convert(
    model: Path,
    output: Path,
    scheme: str,
    target: str,
    io_dtypes: tuple[str, ...],
    input_shapes: tuple[str, ...],
    cut: tuple[str, ...],
    examples: str,
    labels: Path | None,
    cache: Path | None,
    **calibration: str,
) -> None:
    """Converts MODEL, a .keras or .h5 file or a SavedModel, to integers, proves it, and writes what a device needs.

    A quantization-aware trained model brings its ranges; a float one is calibrated with --examples.
    """
    from pipelines.conversion import ConversionRequest, convert_and_show, input_shapes_of, io_dtypes_of, read_labels

    request = ConversionRequest(
        model=model,
        output=output,
        scheme=scheme,
        target=target,
        io_dtypes=io_dtypes_of(io_dtypes),
        input_shapes=input_shapes_of(input_shapes),
        cut=cut,
        examples=examples,
        labels=read_labels(labels) if labels else (),
        cache=cache,
        **calibration,
    )
    convert_and_show(request, Console(highlight=False))


@click.command("compile-tflite")
@click.argument(
    "sources",
    metavar="TFLITE...",
    nargs=-1,
    required=True,
    type=click.Path(path_type=Path, exists=True, dir_okay=False),
)
@click.option("-o", "--output", type=click.Path(path_type=Path), required=True, help="Directory to write; a new one.")
@click.option("--target", default="edge_tpu", show_default=True, help="Where it will run.")
@click.option(
    "--option",
    "options",
    multiple=True,
    metavar="NAME=VALUE",
    help="An option of the target's compiler, such as min_runtime_version=13 or accelerator_config=ethos-u65-256; a"
    " list as JSON.",
)
@click.option(
    "--calls",
    multiple=True,
    metavar="NAME=NUMBER",
    help="How often in a second one of several models runs, by its file's name without .tflite; default: all alike.",
)
@click.option(
    "--segments",
    type=click.IntRange(1),
    default=1,
    show_default=True,
    help="Into how many files to split a model, for as many Edge TPUs in a pipeline.",
)
def compile_tflite(
    sources: tuple[Path, ...],
    output: Path,
    target: str,
    options: tuple[str, ...],
    calls: tuple[str, ...],
    segments: int,
) -> None:
    """Compiles integer-only files for a target, with the target's own compiler, and writes files and reports.

    Several files are compiled together, so that they share the memory of one Edge TPU, in the order that sends the
    fewest parameters.

    Exit status: 0; 1 if the compiler fails or is not there; 2 for a mistake in what was asked.
    """
    from components.targets import CompileError
    from pipelines.file_inspection import options_of
    from pipelines.tflite_compilation import CompileRequest, compile_and_show

    request = CompileRequest(
        sources=sources,
        target=target,
        output=output,
        options=options_of(options),
        calls=options_of(calls, "--calls"),
        segments=segments,
    )
    try:
        compile_and_show(request, Console(highlight=False))
    except CompileError as error:
        raise click.ClickException(str(error)) from error


@click.command()
@click.argument("tflite", type=click.Path(path_type=Path))
@click.option("--float-model", type=click.Path(path_type=Path), required=True, help="The float parent, of Keras.")
@click.option("--qat-model", type=click.Path(path_type=Path), help="The quantization-aware model, as exported.")
@click.option("--examples", required=True, help="An .npz file of arrays by input name, or TFRecords.")
@click.option("--label-key", default="", help="Name of the labels among them, which are classes.")
@click.option("--sensitivity", is_flag=True, help="Quantize one layer at a time, too.")
@click.option("-o", "--output", type=click.Path(path_type=Path), help="Directory for attribution.json, .svg and .txt.")
def attribute(**request: Any) -> None:
    """Shows where the accuracy of TFLITE went: in quantization, in conversion, or in kernels; and in which layer."""
    from pipelines.attribution import AttributionRequest, attribute_and_show

    attribute_and_show(AttributionRequest(**request), Console(highlight=False))


@click.command()
@click.argument("directory", type=click.Path(path_type=Path, exists=True, file_okay=False))
@click.option("--interpreter", default="auto", show_default=True, help="Module of the interpreter, or auto.")
@click.option("--max-lsb", default=0.0, show_default=True, help="Difference of the outputs that is let pass, in steps.")
def selftest(directory: Path, interpreter: str, max_lsb: float) -> None:
    """Runs the golden vectors in DIRECTORY, which was pushed or converted, against the model there.

    Exit status: 0 if it computes what it computed when it was made, 1 if not.
    """
    from components.quantization.contract.selftest import selftest as run_selftest

    result = run_selftest(directory, interpreter=interpreter, max_lsb=max_lsb)
    click.echo(str(result))
    sys.exit(not result.passed)


def is_tflite(source: str) -> bool:
    """Whether a source is, or claims to be, a .tflite file.

    Raises:
      ValueError: If it is named like one and is no file.
    """
    path = Path(source)
    if not path.is_file():
        if path.suffix == ".tflite":
            raise ValueError(f"{source}: got no file there, expected a .tflite file; check the path")
        return False
    from components.quantization.conversion import flatbuffer

    with path.open("rb") as file:
        return path.suffix == ".tflite" or flatbuffer.is_tflite(file.read(flatbuffer.HEAD_BYTES))


COMMANDS = (inspect, convert, compile_tflite, attribute, selftest)
