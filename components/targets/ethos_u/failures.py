"""Why Vela failed, and what to do: each kind is a sentence with its fix."""

import re

from components.targets._failures import Kind, kind_of_exit

HOW_TO_GET_IT = (
    "install it with `pip install ethos-u-vela==5.2.0`, or put it on PATH, give its path as compiler or in TFX_QAT_VELA"
)

KINDS: dict[str, Kind] = {
    "missing_compiler": Kind(sentence="there is no Vela", fix=f'{HOW_TO_GET_IT}, or set when_missing="analyze"'),
    "broken_install": Kind(
        sentence="Vela is there but does not start",
        fix="install ethos-u-vela 5.2.0 anew, with `pip install --force-reinstall --no-deps ethos-u-vela==5.2.0`",
    ),
    "not_parsed": Kind(
        sentence="the model could not be parsed",
        fix='check that the file is whole, and convert it with profile "ethos_u"',
    ),
    "config": Kind(
        sentence="Vela refuses the configuration",
        fix="see accelerator_config, system_config, memory_mode and config_file; `vela --list-configs Arm/vela.ini`"
        " shows what there is",
    ),
    "refused_option": Kind(
        sentence="Vela does not know an option, or a value of one",
        fix="use version 5.2.0, with `pip install ethos-u-vela==5.2.0`",
    ),
    "allocation": Kind(
        sentence="the model does not fit into the memories of the system",
        fix="make feature maps smaller, or choose a memory_mode or a system_config with more memory",
    ),
    "unsupported": Kind(
        sentence="the model has something that Vela cannot compile and does not leave to the CPU",
        fix="see its output; export the model with a fixed batch size and fixed sizes of its inputs",
    ),
    "statistics": Kind(
        sentence="Vela compiled the model but failed at its statistics",
        fix="use another version of Vela; the compiled file alone has no figures to judge it by",
    ),
    "timeout": Kind(
        sentence="Vela did not end in time",
        fix="raise timeout_sec, or look for an op that becomes very many, such as ARG_MAX of a large image",
    ),
    "out_of_memory": Kind(sentence="the machine ran out of memory", fix="give Vela more memory"),
    "disk_full": Kind(sentence="the disk is full", fix="free some space there, and where temporary files are (TMPDIR)"),
    "unwritable": Kind(sentence="files cannot be written there", fix="give a directory that can be made and written"),
    "crash": Kind(
        sentence="Vela crashed", fix="check that the file is whole; else leave out ops until it compiles, and report it"
    ),
    "no_output": Kind(
        sentence="Vela ended without a compiled file", fix="see its output; if it is empty, run the command by hand"
    ),
    "nothing_mapped": Kind(
        sentence="Vela put no op on the NPU",
        fix="see its reasons, and convert the model whole to integers: float ops run on the CPU alone",
    ),
    "no_reason": Kind(sentence="Vela failed", fix="see its output"),
}
"""Every kind of failure, by its name."""

_TEXTS = (  # the first that matches counts
    ("disk_full", r"No space left on device"),
    ("out_of_memory", r"std::bad_alloc|MemoryError|Cannot allocate memory"),
    ("broken_install", r"^(ModuleNotFoundError|ImportError): |No module named '?ethosu"),
    ("refused_option", r"unrecognized arguments|invalid choice|expected one argument"),
    ("config", r"Invalid configuration of|Incorrect argument to CLI option|Reading input file '[^']*\.ini'"),
    ("statistics", r"^Traceback (.*\n)*?.*stats_writer\.py"),
    ("allocation", r"Allocation failed|[Ff]ailed to allocate|exceeds? .*memory|does not fit"),
    ("not_parsed", r"Failed to load TfLite model|No networks defined|cannot mmap an empty file|Reading input file '"),
    ("unsupported", r"Compilation failed|feature that is currently not supported"),
)


def classify(text: str, exit_status: int | None) -> str:
    """Returns the kind of a run that did not succeed.

    Args:
      text: Its output.
      exit_status: What it ended with; None if it was stopped because it took too long.

    >>> classify("RuntimeError: Compilation failed: No networks defined via GraphAPI", 1)
    'not_parsed'
    """
    if exit_status is None:
        return "timeout"
    kind = next((kind for kind, pattern in _TEXTS if re.search(pattern, text, re.MULTILINE)), "")
    if kind:
        return kind
    return kind_of_exit(exit_status) or ("no_reason" if exit_status else "no_output")
