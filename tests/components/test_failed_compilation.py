"""What is left of a compilation that fails inside TargetCompiler."""

from pathlib import Path

import pytest
from tfx.types import standard_artifacts

from components import target_compiler
from components.targets import CompileError
from components.targets.edge_tpu import CompilerOptions

from conftest_components import new_models
from edge_tpu_compilers import VERSION, replaying


@pytest.mark.parametrize("attempt", [1, 2], ids=["first", "retried"])
def test_compiler_keeps_all_that_was_written_and_says_where_when_it_fails(
    shared: Path, tmp_path: Path, attempt: int
) -> None:
    source = standard_artifacts.Model()
    source.uri = str(tmp_path / "source")
    (tmp_path / "source" / "Format-Serving").mkdir(parents=True)
    model = (shared / "edgetpu" / "models" / "mobilenet_v1_0.25_128_quant.tflite").read_bytes()
    (tmp_path / "source" / "Format-Serving" / "tflite").write_bytes(model)
    output = f"Edge TPU Compiler version {VERSION}\n" + "ERROR: one of many lines\n" * 40 + "Model not quantized\n"
    log = tmp_path / "recorded.log"
    log.write_text("a file of the compiler")
    double = replaying(tmp_path / "double", [{"output": output, "exit": 1, "files": {"model_edgetpu.log": str(log)}}])
    properties = {
        "target": "edge_tpu",
        "when_missing": "analyze",
        "options": CompilerOptions(compiler=str(double.path)).to_json(),
    }
    outputs = new_models(tmp_path, "compiled_model")
    uri = outputs["compiled_model"][0].uri
    for _ in range(attempt):
        with pytest.raises(CompileError, match=f"All that the compiler wrote is in {uri}.failed") as raised:
            target_compiler.Executor().Do({"model": [source]}, outputs, properties)
    assert (raised.value.kind, raised.value.log) == ("not_quantized", output)
    kept = {path.name: path.read_text() for path in Path(f"{uri}.failed").iterdir()}
    assert kept == {
        "attempt_1.txt": output,
        "attempt_1_model_edgetpu.log": "a file of the compiler",
        "error.log": output,
    }
    assert not Path(uri).exists()
