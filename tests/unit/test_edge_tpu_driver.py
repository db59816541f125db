"""What the driver makes of each thing that edgetpu_compiler does; the compiler is a double that replays recordings."""

import dataclasses
import errno
import hashlib
import json
import os
import signal
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

import pytest

from components.quantization.conversion import flatbuffer
from components.target_gates.target_facts import target_facts
from components.targets import CompileError, Share, load_target
from components.targets.edge_tpu import CompilerOptions
from components.targets.edge_tpu.driver import drive
from components.targets.edge_tpu.failures import KINDS
from components.targets.edge_tpu.group import GroupMember
from components.targets.edge_tpu.program import Program, find_program

from edge_tpu_compilers import VERSION, Double, knowing, replaying

TARGET = load_target("edge_tpu")
_REPOSITORY = Path(__file__).parent.parent.parent
_BANNER = f"Edge TPU Compiler version {VERSION}\nStarted a compilation timeout timer of 180 seconds.\n"
_END = "Compilation child process completed within timeout period.\n"
_CRASH = {"output": f"{_BANNER}{_END}Compilation failed!\n", "exit": 1}
_LARGE = {
    "output": f"{_BANNER}Compilation failed: Compilation failed due to large activation tensors in model.\n{_END}"
    "Compilation failed!\n",
    "exit": 1,
}
_MODEL = "mobilenet_v1_0.25_128_quant"


def _model(shared: Path, name: str = _MODEL) -> bytes:
    return (shared / "edgetpu" / "models" / f"{name}.tflite").read_bytes()


def _success(shared: Path, **changes: Any) -> dict[str, Any]:
    """What version 16.0 does with a model that it maps whole."""
    compiled = shared / "edgetpu" / "models" / f"{_MODEL}_edgetpu.tflite"
    output = (
        f"{_BANNER}\nModel compiled successfully in 20 ms.\n\nInput model: model.tflite\nInput size: 482.13KiB\n"
        "Output model: model_edgetpu.tflite\nOutput size: 580.91KiB\n"
        "On-chip memory used for caching model parameters: 527.00KiB\n"
        "On-chip memory remaining for caching model parameters: 7.18MiB\n"
        "Off-chip memory used for streaming uncached model parameters: 1.50KiB\nNumber of Edge TPU subgraphs: 1\n"
        "Total number of operations: 31\nOperation log: model_edgetpu.log\n"
        f"See the operation log file for individual operation details.\n{_END}Compilation succeeded! \n"
    )
    return {"output": output, "files": {"model_edgetpu.tflite": str(compiled)}, **changes}


def _options(double: Double, **changes: Any) -> str:
    return CompilerOptions(compiler=str(double.path), **changes).to_json()


def _error(double: Double, tflite: bytes = b"model", **options: Any) -> CompileError:
    program = find_program(CompilerOptions(compiler=str(double.path)))
    assert program is not None
    with pytest.raises(CompileError) as raised:
        drive(program, CompilerOptions(compiler=str(double.path), **options), {"model.tflite": tflite})
    return raised.value


def _is_gone(pid_file: Path) -> bool:
    status = Path("/proc") / pid_file.read_text().strip() / "stat"
    for _ in range(1500):
        if not status.exists() or status.read_text().split()[2] == "Z":
            return True
        time.sleep(0.02)
    return False


def test_compiler_version_begins_with_unknown_when_the_compiler_does_not_say_it(tmp_path: Path) -> None:
    double = Double(tmp_path, version="")
    digest = hashlib.sha256(double.path.read_bytes()).hexdigest()
    assert TARGET.compiler_version(_options(double)) == f"unknown {digest}"


def test_compile_asks_for_the_table_a_runtime_and_a_timer(shared: Path, tmp_path: Path) -> None:
    double = knowing(tmp_path, shared)
    model = TARGET.compile(_model(shared), "fail", _options(double))
    (call,) = double.calls
    assert " ".join(call) == ("--show_operations --min_runtime_version 14 --timeout_sec 180 --out_dir out model.tflite")
    assert [attempt.outcome for attempt in model.report.attempts] == ["compiled"]


def test_compile_finds_the_compiler_on_path(shared: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    knowing(tmp_path, shared)
    monkeypatch.setenv("PATH", f"{tmp_path}:{os.environ['PATH']}")
    assert TARGET.compile(_model(shared)).report.tool == f"edgetpu_compiler {VERSION}"


@pytest.mark.parametrize("failures", [1, 2])
def test_compile_succeeds_when_the_compiler_crashed_before(shared: Path, tmp_path: Path, failures: int) -> None:
    double = replaying(tmp_path, [*[{"output": _BANNER, "signal": int(signal.SIGSEGV)}] * failures, _success(shared)])
    model = TARGET.compile(_model(shared), "fail", _options(double))
    assert [attempt.outcome for attempt in model.report.attempts] == [*["crash"] * failures, "compiled"]
    assert model.report.attempts[0].exit_status == -signal.SIGSEGV
    assert len({tuple(call) for call in double.calls}) == 1


def test_compile_searches_for_a_part_when_the_compiler_goes_on_crashing(tmp_path: Path) -> None:
    double = replaying(tmp_path, [_CRASH])
    error = _error(double)
    steps = [call[call.index("--delegate_search_step") + 1] for call in double.calls if "--search_delegate" in call]
    assert len(double.calls) == 6
    assert steps == ["30", "10", "1"]
    assert error.kind == "no_reason"
    assert len(error.attempts) == 6
    assert error.log.count("Compilation failed!") == 6
    assert KINDS["no_reason"].fix in str(error)


def test_compile_searches_at_once_when_activations_are_large(shared: Path, tmp_path: Path) -> None:
    double = replaying(tmp_path, [_LARGE, _LARGE, _success(shared)])
    model = TARGET.compile(_model(shared), "fail", _options(double))
    assert [attempt.outcome for attempt in model.report.attempts] == [
        "large_activations",
        "large_activations",
        "compiled",
    ]
    assert double.calls[2][double.calls[2].index("--delegate_search_step") + 1] == "10"


def test_compile_stops_searching_when_the_budget_is_spent(tmp_path: Path) -> None:
    double = replaying(tmp_path, [{"child": str(tmp_path / "child"), "hang": True}])
    error = _error(double, budget_sec=3)
    assert error.kind == "timeout"
    assert "the budget of time is spent" in str(error)
    assert [attempt.outcome for attempt in error.attempts] == ["timeout"]
    assert _is_gone(tmp_path / "child")


def test_compile_stops_the_compiler_and_its_deaf_children_when_it_hangs(tmp_path: Path) -> None:
    double = replaying(tmp_path, [{"output": _BANNER, "child": str(tmp_path / "child"), "hang": True}])
    started = time.monotonic()
    error = _error(double, budget_sec=3, search_steps=())
    assert time.monotonic() - started < 60  # the child sleeps for 600
    assert (error.kind, error.log) == ("timeout", _BANNER)  # what it had said is kept
    assert error.attempts[0].exit_status is None
    assert _is_gone(tmp_path / "child")


def test_compile_comes_to_every_search_when_each_of_them_hangs(tmp_path: Path) -> None:
    hang = {"output": _BANNER, "hang": True}
    double = replaying(tmp_path, [{"output": _LARGE["output"], "exit": 1}, hang])
    error = _error(double, budget_sec=9)
    assert [attempt.outcome for attempt in error.attempts] == ["large_activations", *["timeout"] * 3]
    steps = [call[call.index("--delegate_search_step") + 1] for call in double.calls[1:]]
    assert steps == ["30", "10", "1"]


def test_compile_keeps_the_beginning_when_the_compiler_does_not_stop_talking(tmp_path: Path) -> None:
    path = tmp_path / "edgetpu_compiler"
    path.write_text(f"#!/bin/sh\n[ \"$1\" = --version ] && exit\nprintf '%s' '{_BANNER}'\nexec yes words without end\n")
    path.chmod(0o755)
    with pytest.raises(CompileError) as raised:
        drive(Program(path=str(path)), CompilerOptions(budget_sec=3, search_steps=()), {"model.tflite": b"model"})
    assert raised.value.kind == "timeout"
    assert raised.value.log.startswith(_BANNER)
    assert raised.value.log.endswith("(what was said after 16 MiB is left out)\n")
    assert len(raised.value.log) < 2**24 + 100


def test_compile_succeeds_and_leaves_no_child_when_the_compiler_ends_before_it(shared: Path, tmp_path: Path) -> None:
    double = replaying(tmp_path, [_success(shared, child=str(tmp_path / "child"))])
    report = TARGET.compile(_model(shared), "fail", _options(double, budget_sec=20)).report
    assert [attempt.outcome for attempt in report.attempts] == ["compiled"]
    assert _is_gone(tmp_path / "child")


@pytest.mark.parametrize(
    ("changes", "kind"),
    [
        ({"files": {}}, "no_output"),
        ({"exit": 1}, "no_reason"),
        ({"output": _BANNER}, "no_success_message"),
        ({"output": "Model compiled successfully in 20 ms.\n"}, "no_success_message"),
        ({"files": {"model_edgetpu.tflite": "/dev/null"}}, "no_output"),
        ({"files": {"model_edgetpu.tflite": __file__}}, "no_output"),
        ({"files": {"model_edgetpu.tflite": "uncompiled"}}, "nothing_mapped"),
    ],
    ids=["no file", "exit status", "no words", "half of the words", "empty file", "no model", "nothing mapped"],
)
def test_compile_raises_when_one_sign_of_success_is_missing(
    shared: Path, tmp_path: Path, changes: dict[str, Any], kind: str
) -> None:
    if changes.get("files") == {"model_edgetpu.tflite": "uncompiled"}:
        path = shared / "edgetpu" / "models" / f"{_MODEL}.tflite"
        changes = {"files": {"model_edgetpu.tflite": str(path)}}
    double = replaying(tmp_path, [_success(shared, **changes)])
    error = _error(double, attempts=1, search_steps=())
    assert error.kind == kind
    assert KINDS[kind].sentence in str(error)


def test_compile_takes_the_words_of_an_older_version(shared: Path, tmp_path: Path) -> None:
    step = _success(shared)
    lines = step["output"].splitlines(keepends=True)
    old = "".join(line for line in lines if not line.startswith(("Started", "Compilation")))
    old = old.replace(VERSION, "14.1.317412892")
    double = Double(tmp_path, version="14.1.317412892", steps=[{**step, "output": old}])
    report = TARGET.compile(_model(shared), "fail", _options(double)).report
    assert report.tool == "edgetpu_compiler 14.1.317412892"
    assert double.calls[0][:-3] == ["--show_operations"]  # it knows neither that runtime nor a timer


_QUOTED = {
    "Model not quantized": "not_quantized",
    "RESIZE_NEAREST_NEIGHBOR": "op_version",
    "Internal compiler error": "internal_error",
    "dynamic-sized": "dynamic_shapes",
    "large activation tensors": "large_activations",
    "Atan": "custom_op",
    "FlexSplitV": "custom_op",
    "Compilation timeout": "timeout",
    "Segmentation fault": "crash",
}


def test_every_quoted_failure_has_its_kind_and_fix(shared: Path, tmp_path: Path) -> None:
    entries = json.loads((shared / "edgetpu" / "logs" / "failures" / "failures.json").read_text())["entries"]
    failures = [entry["text"] for entry in entries if "compiled successfully" not in entry["text"]]
    assert len(failures) == 10
    for number, text in enumerate(failures):
        kind = next((kind for words, kind in _QUOTED.items() if words in text), "no_reason")
        error = _error(replaying(tmp_path / str(number), [{"output": text, "exit": 1}]), attempts=1, search_steps=())
        assert error.kind == kind, text
        assert KINDS[kind].fix in str(error)
        assert text.strip().splitlines()[-1].strip() in str(error)
        assert error.log == text


def test_error_names_the_op_and_its_version_when_the_compiler_does_not_know_it(tmp_path: Path) -> None:
    output = "ERROR: Didn't find op for builtin opcode 'CONV_2D' version '6'. \nERROR: Registration failed.\n"
    text = str(_error(replaying(tmp_path, [{"output": output, "exit": 1}])))
    assert text.startswith("the model has an op in a version that this compiler does not know (CONV_2D version 6)")


@pytest.mark.parametrize(
    ("step", "kind"),
    [
        ({"output": "terminate called after throwing an instance of 'std::bad_alloc'\n", "exit": 134}, "out_of_memory"),
        ({"signal": int(signal.SIGKILL)}, "out_of_memory"),
        ({"exit": 137}, "out_of_memory"),
        ({"output": "cannot write out/model_edgetpu.tflite: No space left on device\n", "exit": 1}, "disk_full"),
        ({"output": "ERROR: unknown command line flag 'timeout_sec'\n", "exit": 1}, "refused_option"),
        ({"exit": 139}, "crash"),
        ({"exit": 0}, "no_output"),
    ],
)
def test_failure_has_its_kind_when_the_machine_or_the_program_is_to_blame(
    tmp_path: Path, step: dict[str, Any], kind: str
) -> None:
    assert _error(replaying(tmp_path, [step]), attempts=1, search_steps=()).kind == kind


def test_compile_does_not_try_again_when_the_model_is_to_blame(tmp_path: Path) -> None:
    double = replaying(tmp_path, [{"output": "Invalid model: model.tflite\nModel not quantized\n", "exit": 1}])
    _error(double)
    assert len(double.calls) == 1


def test_compile_says_so_when_the_disk_is_full_before_the_compiler_starts(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    double = replaying(tmp_path, [_CRASH])

    def full(*_: object) -> int:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    monkeypatch.setattr(Path, "write_bytes", full)
    assert _error(double).kind == "disk_full"


def test_compile_raises_with_what_to_do_when_the_compiler_is_missing(
    monkeypatch: pytest.MonkeyPatch, shared: Path, tmp_path: Path
) -> None:
    monkeypatch.setenv("PATH", str(tmp_path))
    with pytest.raises(CompileError, match="edgetpu_compiler is not on PATH: .* install it") as raised:
        TARGET.compile(_model(shared), when_missing="fail")
    assert raised.value.kind == "missing_compiler"
    options = CompilerOptions(image="compilers/edgetpu:16", container_runtime="podman").to_json()
    with pytest.raises(CompileError, match="podman is not on PATH"):
        TARGET.compile(_model(shared), when_missing="fail", options=options)


def test_compile_says_so_when_the_program_is_of_another_machine(tmp_path: Path) -> None:
    path = tmp_path / "edgetpu_compiler"
    path.write_bytes(b"\x7fELF of another processor")
    path.chmod(0o755)
    with pytest.raises(CompileError, match=r"does not start \(.*Exec format error.* x86-64 Linux") as raised:
        drive(Program(path=str(path)), CompilerOptions(), {"model.tflite": b"model"})
    assert raised.value.kind == "broken_install"
    assert "when_missing" not in str(raised.value)  # whoever set it to "analyze" comes here too


@pytest.mark.parametrize(
    ("image", "output", "exit_status", "kind"),
    [
        ("", "edgetpu_compiler: error while loading shared libraries: libc++.so.1: cannot open", 127, "broken_install"),
        ("", "/opt/edgetpu_compiler: line 2: edgetpu_compiler.bin: not found", 127, "broken_install"),
        ("x:1", "exec /usr/bin/edgetpu_compiler: exec format error", 1, "broken_install"),
        ("x:1", "docker: Error response from daemon: pull access denied for x, it does not exist", 125, "container"),
        ("x:1", 'docker: exec: "edgetpu_compiler": executable file not found in $PATH', 127, "container"),
        ("x:1", "docker: Cannot connect to the Docker daemon at unix:///var/run/docker.sock", 1, "container"),
        ("x:1", "Unable to find image 'x:1' locally\nDownloaded newer image\nModel not quantized", 1, "not_quantized"),
    ],
)
def test_compile_tries_once_and_says_so_when_compiler_or_container_does_not_start(
    tmp_path: Path, image: str, output: str, exit_status: int, kind: str
) -> None:
    path = tmp_path / "docker"
    (tmp_path / "output").write_text(output)
    path.write_text(f"#!/bin/sh\ncat {tmp_path}/output >&2\nexit {exit_status}\n")
    path.chmod(0o755)
    with pytest.raises(CompileError) as raised:
        drive(Program(path=str(path), image=image, compiler="edgetpu_compiler"), CompilerOptions(), {"m.tflite": b"m"})
    assert [attempt.outcome for attempt in raised.value.attempts] == [kind]
    assert raised.value.kind == kind
    assert KINDS[kind].fix in str(raised.value)


def test_compile_keeps_what_each_run_wrote_when_it_is_asked_to(shared: Path, tmp_path: Path) -> None:
    log = tmp_path / "recorded.log"
    log.write_text("Edge TPU Compiler version 16.0.384591198\n")
    step = {**_LARGE, "files": {"model_edgetpu.log": str(log)}}
    double = replaying(tmp_path / "double", [step])
    kept = tmp_path / "kept"
    with pytest.raises(CompileError):
        TARGET.compile(_model(shared), "fail", _options(double, search_steps=(30,)), kept)
    assert sorted(path.name for path in kept.iterdir()) == [
        "attempt_1.txt",
        "attempt_1_model_edgetpu.log",
        "attempt_2.txt",
        "attempt_2_model_edgetpu.log",
    ]
    assert (kept / "attempt_1.txt").read_text() == _LARGE["output"]


def test_compile_says_so_before_it_compiles_when_the_directory_cannot_be_made(shared: Path, tmp_path: Path) -> None:
    double = replaying(tmp_path / "double", [_success(shared)])
    (tmp_path / "file").touch()
    with pytest.raises(CompileError, match=f"directory {tmp_path}/file/kept: files cannot be written there") as raised:
        TARGET.compile(_model(shared), "fail", _options(double), tmp_path / "file" / "kept")
    assert raised.value.kind == "unwritable"
    assert double.calls == []


def test_compile_says_so_when_the_disk_is_full_after_the_compiler_succeeded(
    shared: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    double = replaying(tmp_path / "double", [_success(shared)])

    def full(*_: object, **__: object) -> int:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    monkeypatch.setattr(Path, "write_text", full)
    with pytest.raises(CompileError, match=f"directory {tmp_path}/kept: the disk is full") as raised:
        TARGET.compile(_model(shared), "fail", _options(double), tmp_path / "kept")
    assert "Compilation succeeded!" in raised.value.log


def test_compile_says_so_when_there_is_no_place_for_temporary_files(
    shared: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    double = replaying(tmp_path, [_success(shared)])
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path / "none"))
    with pytest.raises(CompileError, match="a temporary directory: files cannot be written there"):
        TARGET.compile(_model(shared), "fail", _options(double))


def test_compile_raises_without_the_compiler_when_the_bytes_are_no_model(shared: Path, tmp_path: Path) -> None:
    double = knowing(tmp_path, shared)
    with pytest.raises(ValueError, match="not a TFLite flatbuffer"):
        TARGET.compile(b"hello" * 20, "fail", _options(double))
    with pytest.raises(ValueError, match="not a TFLite flatbuffer"):
        TARGET.compile_segments(b"hello" * 20, _options(double, num_segments=2))
    members = [GroupMember(name="one", tflite=_model(shared)), GroupMember(name="two", tflite=b"hello" * 20)]
    with pytest.raises(ValueError, match="model two of the group: not a TFLite flatbuffer"):
        TARGET.compile_group(members, _options(double))
    assert double.calls == []


def test_group_raises_for_its_models_before_it_misses_a_compiler(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PATH", "")
    with pytest.raises(ValueError, match="models of a group: got none, expected two or more"):
        TARGET.compile_group([])


def test_container_sees_one_folder_and_no_network(tmp_path: Path) -> None:
    program = Program(path="/usr/bin/docker", image="compilers/edgetpu:16", compiler="edgetpu_compiler")
    command = program.command(["--show_operations", "model.tflite"], tmp_path, "name")
    assert command == (
        *("/usr/bin/docker", "run", "--rm", "--name", "name", "--network", "none", "--platform", "linux/amd64"),
        *("--user", f"{os.getuid()}:{os.getgid()}", "--volume", f"{tmp_path}:/models", "--workdir", "/models"),
        *("--entrypoint", "edgetpu_compiler", "compilers/edgetpu:16", "--show_operations", "model.tflite"),
    )


def test_container_is_stopped_by_name_when_it_takes_too_long(tmp_path: Path) -> None:
    docker = tmp_path / "docker"
    calls = tmp_path / "calls"
    docker.write_text(f'#!/bin/bash\necho "$@" >> {calls}\n[[ "$*" == *show_operations* ]] && sleep 60\nexit 0\n')
    docker.chmod(0o755)
    program = Program(path=str(docker), image="compilers/edgetpu:16", compiler="edgetpu_compiler")
    with pytest.raises(CompileError, match="did not end in time"):
        drive(program, CompilerOptions(budget_sec=1, search_steps=()), {"model.tflite": b"model"})
    _, run, kill = calls.read_text().splitlines()
    name = run.split()[run.split().index("--name") + 1]
    assert kill == f"kill {name}"


_DRIVING = """
import sys
from components.targets.edge_tpu import CompilerOptions
from components.targets.edge_tpu.driver import drive
from components.targets.edge_tpu.program import Program
program = Program(path=sys.argv[1], image="compilers/edgetpu:16", compiler="edgetpu_compiler")
drive(program, CompilerOptions(), {"model.tflite": b"model"})
"""


def test_container_is_stopped_by_name_when_this_process_is_killed(tmp_path: Path) -> None:
    docker = tmp_path / "docker"
    calls = tmp_path / "calls"
    docker.write_text(f'#!/bin/bash\necho "$@" >> {calls}\n[[ "$*" == *show_operations* ]] && sleep 60\nexit 0\n')
    docker.chmod(0o755)

    def line(number: int) -> list[str]:
        deadline = time.monotonic() + 60
        while time.monotonic() < deadline:
            if calls.exists() and calls.read_text().count("\n") >= number:
                return calls.read_text().splitlines()[number - 1].split()
            time.sleep(0.02)
        pytest.fail(f"there was no call {number} of docker")

    with subprocess.Popen([sys.executable, "-c", _DRIVING, str(docker)], cwd=_REPOSITORY) as process:
        run = line(2)
        process.kill()
    assert line(3) == ["kill", run[run.index("--name") + 1]]


def test_group_is_given_up_at_once_when_a_model_is_to_blame(shared: Path, tmp_path: Path) -> None:
    double = replaying(tmp_path, [{"output": "Invalid model: a.tflite\nModel not quantized\n", "exit": 1}])
    members = [GroupMember(name=name, tflite=_model(shared)) for name in "abcd"]
    with pytest.raises(CompileError, match="the model is not quantized"):
        TARGET.compile_group(members, _options(double))
    assert len(double.calls) == 1


def test_group_keeps_what_was_compiled_when_another_order_fails(shared: Path, tmp_path: Path) -> None:
    compiled = str(shared / "edgetpu" / "models" / f"{_MODEL}_edgetpu.tflite")
    success = _success(shared)
    block = success["output"][success["output"].index("\nInput model") : success["output"].index(_END)]
    start, end = success["output"][: success["output"].index("\nInput model")], _END + "Compilation succeeded! \n"
    both = "".join(block.replace("model.tflite", f"{n}.tflite").replace("model_e", f"{n}_e") for n in "ab")
    files = {f"{name}_edgetpu.tflite": compiled for name in "ab"}
    fine = {"output": start.replace("Model compiled", "Models compiled") + both + end, "files": files}
    double = replaying(tmp_path, [fine, {"output": "No space left on device\n", "exit": 1}])
    members = [GroupMember(name=name, tflite=_model(shared)) for name in "ab"]
    found = TARGET.compile_group(members, _options(double))
    assert list(found.models) == ["a", "b"]
    assert [traffic is None for _, traffic in found.orders] == [False, True]


def test_group_ends_within_its_budget_when_orders_hang(shared: Path, tmp_path: Path) -> None:
    double = replaying(tmp_path, [{"output": _BANNER, "hang": True}])
    members = [GroupMember(name=name, tflite=_model(shared)) for name in "abcd"]
    started = time.monotonic()
    with pytest.raises(CompileError, match="the compiler did not end in time"):
        TARGET.compile_group(members, _options(double, budget_sec=4, search_steps=()))
    assert time.monotonic() - started < 60
    assert 1 <= len(double.calls) <= 4


def test_group_takes_the_order_with_the_least_traffic(shared: Path, tmp_path: Path) -> None:
    double = knowing(tmp_path, shared, memory_bytes=900_000)
    members = [
        GroupMember(name="rare", tflite=_model(shared, "mobilenet_v1_0.5_160_quant"), calls_per_second=1),
        GroupMember(name="often", tflite=_model(shared), calls_per_second=30),
    ]
    found = TARGET.compile_group(members, _options(double))
    assert list(found.models) == ["often", "rare"]
    assert [order for order, _ in found.orders] == [("often", "rare"), ("rare", "often")]
    traffic = [bytes_per_second for _, bytes_per_second in found.orders]
    assert found.traffic_bytes_per_second == min(traffic) < max(traffic)  # type: ignore[type-var]
    assert [call[-2:] for call in double.calls] == [["often.tflite", "rare.tflite"], ["rare.tflite", "often.tflite"]]
    assert found.models["often"].report.memory.streamed_bytes == 0
    found.write(tmp_path / "group")
    manifest = json.loads((tmp_path / "group" / "group.json").read_text())
    assert [member["file"] for member in manifest["members"]] == ["often_edgetpu.tflite", "rare_edgetpu.tflite"]
    assert (tmp_path / "group" / "often_edgetpu.tflite").read_bytes() == found.models["often"].tflite


def test_segments_are_files_in_the_order_in_which_they_run(shared: Path, tmp_path: Path) -> None:
    double = knowing(tmp_path, shared)
    found = TARGET.compile_segments(_model(shared), _options(double, num_segments=2))
    assert list(found.models) == ["model_segment_0_of_2", "model_segment_1_of_2"]
    assert double.calls[0][double.calls[0].index("--num_segments") + 1] == "2"
    with pytest.raises(ValueError, match="call compile_segments"):
        TARGET.compile(_model(shared), "fail", _options(double, num_segments=2))


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ('{"min_runtime_version": 9, "timeout_sec": 0}', "expected one of 10, 11, 12, 13, 14; timeout_sec: got 0"),
        ('{"show_operations": 1}', "show_operations: got 1, expected something like True"),
        ('{"num_segments": 2, "search_delegate": true}', "choose one"),
        ('{"intermediate_tensors": ["a,b"]}', "expected names without commas"),
        ('{"intermediate_tensors": "abc"}', "intermediate_tensors: got 'abc', expected a list of names"),
        ('{"search_steps": 5}', "search_steps: got 5, expected a list of numbers"),
        ('{"image": "--privileged"}', "expected a reference"),
        ('{"compiler": "-x"}', "expected a program's name or path"),
        ('{"verbose": true}', "not options of edgetpu_compiler"),
        ("[1]", "not options of edgetpu_compiler.*expected an object"),
    ],
)
def test_options_raise_when_a_value_has_no_meaning(options: str, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        TARGET.require_options(options)


def test_options_survive_their_json_with_every_default_written_out() -> None:
    options = CompilerOptions(intermediate_tensors=("a", "b"), search_steps=(5,))
    assert CompilerOptions.from_json(options.to_json()) == options
    assert json.loads(TARGET.require_options(""))["min_runtime_version"] == 14
    assert options.arguments()[-4:] == ["--intermediate_tensors", "a,b", "--timeout_sec", "180"]


def test_report_does_not_say_all_when_neither_log_nor_file_tells_which_ops(shared: Path, tmp_path: Path) -> None:
    source = _model(shared)
    content = flatbuffer.read_object(source)
    graph = content.subgraphs[0]
    for op in graph.operators[:2]:
        graph.tensors[op.outputs[0]].name = b"same"  # so that the compiled file does not tell
    told = "Number of operations that will run on Edge TPU: 24\nNumber of operations that will run on CPU: 7\n"
    step = _success(shared)
    step["output"] = step["output"].replace("See the operation log", f"{told}See the operation log")
    report = TARGET.compile(flatbuffer.write_object(content), "fail", _options(replaying(tmp_path, [step]))).report
    assert (report.on_target, report.on_cpu) == (Share(ops=24), Share(ops=7))
    assert "tell which operations run on the Edge TPU" in report.problems[-1]
    facts = target_facts(dataclasses.asdict(report))
    assert "macs_on_target" not in facts
    assert facts["streamed_bytes"] == 1536


def test_report_says_so_when_the_log_counts_other_parts_than_the_compiled_file_has(
    shared: Path, tmp_path: Path
) -> None:
    step = _success(shared)
    step["output"] = step["output"].replace("Edge TPU subgraphs: 1", "Edge TPU subgraphs: 5")
    report = TARGET.compile(_model(shared), "fail", _options(replaying(tmp_path, [step]))).report
    assert "5 Edge TPU subgraphs in the log, but 1 in the compiled file" in report.problems
