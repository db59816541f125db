"""Why edgetpu_compiler failed, and what to do: each kind is a sentence with its fix."""

import re

from components.targets._failures import Kind, kind_of_exit
from components.targets.edge_tpu.log import CompilerLog

KINDS: dict[str, Kind] = {
    "missing_compiler": Kind(
        sentence="there is no compiler",
        fix="install it (https://coral.ai/docs/edgetpu/compiler/, x86-64 Linux), give its path as compiler or a"
        ' container image as image, or set when_missing="analyze"',
    ),
    "broken_install": Kind(
        sentence="the compiler is there but does not start",
        fix="it needs an x86-64 Linux machine and its libraries beside it: install it anew"
        " (https://coral.ai/docs/edgetpu/compiler/), or give a container image that has it as image",
    ),
    "container": Kind(
        sentence="the container that has the compiler does not start",
        fix="see that image names an image that is there or can be pulled, that the compiler is on its PATH, and that"
        " container_runtime works: `docker run --rm IMAGE edgetpu_compiler --version` shows it",
    ),
    "not_quantized": Kind(
        sentence="the model is not quantized",
        fix="convert it with full-integer quantization and a fixed batch size; TFLiteIntConverter does both",
    ),
    "op_version": Kind(
        sentence="the model has an op in a version that this compiler does not know",
        fix='convert it with profile "edge_tpu", which keeps to the versions that compiler 16.0 knows',
    ),
    "not_parsed": Kind(
        sentence="the model could not be parsed",
        fix='check that the file is whole, and convert it with profile "edge_tpu"',
    ),
    "dynamic_shapes": Kind(
        sentence="a tensor's size is not known before the model runs",
        fix="export the model with a fixed batch size and fixed sizes of its inputs, and without control flow",
    ),
    "custom_op": Kind(
        sentence="the model has an op that is no TFLite builtin",
        fix="end the model before that op (cut) and compute the rest in the application, or write it with builtin ops",
    ),
    "interpreter": Kind(
        sentence="TFLite's interpreter inside the compiler refuses the model",
        fix="run the model in tf.lite.Interpreter; the compiler's TFLite is of 2021: convert with profile"
        ' "edge_tpu" if only newer ones take it',
    ),
    "large_activations": Kind(
        sentence="activations do not fit into the Edge TPU's memory",
        fix="make the input smaller, or name with intermediate_tensors where the Edge TPU's part is to end",
        may_be_cut=True,
    ),
    "timeout": Kind(
        sentence="the compiler did not end in time",
        fix="raise timeout_sec and budget_sec, make the input smaller (large activations are the usual cause), or name"
        " with intermediate_tensors where the Edge TPU's part is to end",
        may_be_cut=True,
    ),
    "internal_error": Kind(
        sentence="the compiler had an internal error",
        fix="try compiler 16.0, which names the cause more often; else bisect the model with intermediate_tensors",
        is_flaky=True,
        may_be_cut=True,
    ),
    "crash": Kind(
        sentence="the compiler crashed",
        fix="bisect the model with intermediate_tensors; with num_segments, use fewer segments",
        is_flaky=True,
        may_be_cut=True,
    ),
    "no_reason": Kind(
        sentence="the compiler failed and gave no reason",
        fix="look for LSTMs with wide inputs and for 1-D convolutions, which do that; else bisect the model with"
        " intermediate_tensors",
        is_flaky=True,
        may_be_cut=True,
    ),
    "no_output": Kind(
        sentence="the compiler ended without a compiled file",
        fix="see its output; if it is empty, run the command by hand",
        is_flaky=True,
        may_be_cut=True,
    ),
    "no_success_message": Kind(
        sentence="there is a compiled file, but the compiler does not say that it succeeded",
        fix="see its output; the file may be of a run that was cut off",
        is_flaky=True,
    ),
    "nothing_mapped": Kind(
        sentence="the compiler mapped no op to the Edge TPU",
        fix="see the status of the ops: float inputs need io_dtype int8 or uint8, and a low min_runtime_version maps"
        " fewer ops",
    ),
    "out_of_memory": Kind(
        sentence="the machine ran out of memory",
        fix="give the compiler more memory, or make the model smaller",
    ),
    "disk_full": Kind(sentence="the disk is full", fix="free some space there, and where temporary files are (TMPDIR)"),
    "unwritable": Kind(sentence="files cannot be written there", fix="give a directory that can be made and written"),
    "refused_option": Kind(
        sentence="the compiler does not know an option",
        fix="leave the option out, or use compiler 16.0",
    ),
}
"""Every kind of failure, by its name."""

_TEXTS = (  # the first that matches counts
    ("broken_install", r"error while loading shared libraries|[Ee]xec format error|cannot execute binary file"),
    ("container", r"Cannot connect to the Docker daemon"),
    ("disk_full", r"No space left on device"),
    ("out_of_memory", r"std::bad_alloc|Cannot allocate memory|[Oo]ut of memory"),
    ("refused_option", r"[Uu]nknown (command line )?(flag|option)|unrecognized option|[Uu]nknown argument"),
    ("op_version", r"Didn't find op for builtin opcode '\w+' version '\d+'"),
    ("not_quantized", r"Model not quantized"),
    ("dynamic_shapes", r"dynamic-sized tensors"),
    ("custom_op", r"unresolved custom op|Regular TensorFlow ops are not supported"),
    ("large_activations", r"due to large activation tensors"),
    ("timeout", r"Compilation timeout"),
    ("not_parsed", r"Model could not be parsed|Did not get operators, tensors, or buffers"),
    ("interpreter", r"Model failed in Tflite interpreter"),
    ("crash", r"Segmentation fault|core dumped|terminate called|Bus error|Illegal instruction"),
    ("internal_error", r"Internal (compiler )?error"),
)


# Of the program that runs containers: it failed itself, or could not start or find the compiler in the image.
# https://docs.docker.com/engine/containers/run/#exit-status
_EXITS_OF_CONTAINERS = (125, 126, 127)


def classify(log: CompilerLog, text: str, exit_status: int | None, *, in_container: bool = False) -> str:
    """Returns the kind of a run that did not succeed.

    Args:
      log: What was read of its output.
      text: The output itself.
      exit_status: What it ended with; None if it was stopped because it took too long.
      in_container: Whether it ran in a container.
    """
    last = _last_attempt(text) if log.search_ops else text
    kind = next((kind for kind, pattern in _TEXTS if re.search(pattern, last)), "")
    if exit_status is None:
        return "timeout"
    if kind in ("disk_full", "out_of_memory") or (kind and kind != "crash"):
        return kind
    if in_container and exit_status in _EXITS_OF_CONTAINERS:
        return "container"
    ended = kind_of_exit(exit_status)
    if kind or ended:  # a crash that its own words tell may be a kill all the same
        return ended or kind
    return "no_reason" if log.succeeded is False or exit_status else "no_output"


def detail(kind: str, text: str) -> str:
    """Returns what the output names: the op and its version, or the custom op; "" if nothing."""
    if kind == "op_version":
        found = re.findall(r"builtin opcode '(\w+)' version '(\d+)'", text)
        return ", ".join(dict.fromkeys(f"{op} version {version}" for op, version in found))
    if kind == "custom_op":
        pattern = r"unresolved custom op: (\S+?)\.?$|Node number \d+ \((\w+)\) failed to prepare"
        found = re.findall(pattern, text, re.MULTILINE)
        return ", ".join(dict.fromkeys(name or other for name, other in found))
    return ""


def _last_attempt(text: str) -> str:
    """What a delegate search said last; attempts before it failed, or it would have ended."""
    attempts = [part for part in text.split("Try to compile segment with") if "ompilation" in part]
    return attempts[-1] if attempts else text
