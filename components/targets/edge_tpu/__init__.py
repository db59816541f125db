"""Coral Edge TPU: its compiler's driver, and a static analysis by the documented rules where there is no compiler.

Rules: https://coral.ai/docs/edgetpu/models-intro/ and what compiled models in public show. Status strings are those of
edgetpu_compiler 16.0.
"""

import dataclasses
import logging
import time
from collections.abc import Sequence
from pathlib import Path

from components.quantization.conversion import flatbuffer
from components.targets import CompiledModel, CompileError, CompileReport, Mapping, Memory, analysis
from components.targets._compiled_file import require_uncompiled
from components.targets._target import ProfiledTarget
from components.targets.edge_tpu import group, mapping, statuses
from components.targets.edge_tpu.driver import drive, output_names
from components.targets.edge_tpu.edits import edit
from components.targets.edge_tpu.failures import KINDS
from components.targets.edge_tpu.generations import Generation
from components.targets.edge_tpu.log import MAPPED
from components.targets.edge_tpu.options import COMPILER, CUSTOM_OP, CompilerOptions
from components.targets.edge_tpu.parameter_memory import parameter_memory
from components.targets.edge_tpu.program import Program, find_program
from components.targets.edge_tpu.reporting import compiled_model

__all__ = ["COMPILER", "MAPPED", "TARGET", "CompilerOptions", "EdgeTpu"]

_LOGGER = logging.getLogger(__name__)

_MODEL = "model.tflite"
_HASTY_SEC = 60


class EdgeTpu(ProfiledTarget):
    """The Edge TPU and edgetpu_compiler."""

    name = "edge_tpu"

    def inspect(
        self,
        tflite: bytes,
        *,
        compiler_version: str = "16.0",
        min_runtime_version: int | None = None,
        multiple_subgraphs: bool = False,
    ) -> Mapping:
        """Predicts the compiler's mapping: see `mapping.predict`; raises ValueError for a compiled file too."""
        require_uncompiled(tflite, CUSTOM_OP)
        return mapping.predict(
            tflite,
            compiler_version=compiler_version,
            min_runtime_version=min_runtime_version,
            multiple_subgraphs=multiple_subgraphs,
        )

    def report(
        self,
        tflite: bytes,
        mapping: Mapping,
        *,
        compiler_version: str = "16.0",
        min_runtime_version: int | None = None,
        multiple_subgraphs: bool = False,
    ) -> CompileReport:
        """Returns the report of a model of that predicted mapping, with the memory of its parameters."""
        # What the versions were taken for was said when the mapping was predicted.
        generation = Generation.of(compiler_version, min_runtime_version, quiet=True)
        refused = statuses.OF_MODELS & {op.status for op in mapping.ops}
        if refused:
            problem = f"the compiler does not take this model: {', '.join(refused)}"
            report = analysis(mapping, tflite, edit)
            return dataclasses.replace(report, subgraphs=None, problems=(*report.problems, problem))
        memory = parameter_memory(tflite, mapping, generation)
        return dataclasses.replace(
            analysis(mapping, tflite, edit),
            memory=Memory(cached_bytes=memory.cached_bytes, streamed_bytes=memory.streamed_bytes, basis=memory.basis),
            measurements={"memory_confidence": memory.confidence},
        )

    def analyze(self, tflite: bytes, options: str = "") -> tuple[Mapping, CompileReport]:
        """Predicts what a compiler of the options' generation does."""
        generation = CompilerOptions.from_json(options).generation()
        predicted = self.inspect(tflite, **generation)
        return predicted, self.report(tflite, predicted, **generation)

    def hasty(self, options: str) -> str:
        """One attempt, without a delegate search, within a minute."""
        wanted = CompilerOptions.from_json(options)
        budget = min(wanted.budget_sec, _HASTY_SEC)
        return dataclasses.replace(wanted, attempts=1, search_steps=(), budget_sec=budget).to_json()

    def require_options(self, options: str) -> str:
        """Reads `CompilerOptions`."""
        found = CompilerOptions.from_json(options)
        if found.num_segments > 1:
            raise ValueError(
                "num_segments: makes several files of a model; take EdgeTPUGroupCompiler, or call compile_segments"
            )
        return found.to_json()

    def compiler_version(self, options: str = "") -> str:
        """Returns version and sha256 of the compiler, or its container image, that the options name; "" without one."""
        program = find_program(CompilerOptions.from_json(options))
        return program.identity() if program else ""

    def compile(
        self, tflite: bytes, when_missing: str = "analyze", options: str = "", directory: Path | None = None
    ) -> CompiledModel:
        """Runs edgetpu_compiler, again or with a delegate search where that may help."""
        wanted = CompilerOptions.from_json(self.require_options(options))
        flatbuffer.read_subgraphs(tflite)  # of what is none, the compiler does not say so
        program = find_program(wanted)
        if program is None and when_missing == "analyze":
            _LOGGER.info("%s is not there: the model is analysed, not compiled", wanted.compiler)
            predicted, report = self.analyze(tflite, options)
            return CompiledModel(tflite=tflite, report=report, mapping=predicted)
        outcome = drive(_present(program, wanted), wanted, {_MODEL: tflite}, directory)
        return compiled_model(outcome, 0, output_names({_MODEL: tflite})[0], tflite, wanted)

    def compile_group(
        self, members: Sequence[group.GroupMember], options: str = "", directory: Path | None = None
    ) -> group.CompiledGroup:
        """Compiles models together, so that their parameters share the Edge TPU's memory.

        The order decides who gets the memory: it is the one with the least traffic of parameters.

        Args:
          members: Two models or more.
          options: JSON of `CompilerOptions`, of which `budget_sec` is for all orders: when it is spent, the best of
            those that were compiled is taken.
          directory: Where to keep what the compiler wrote, in a folder for each order; None for nowhere.

        Raises:
          CompileError: If the compiler fails, or there is none.
          ValueError: If there are fewer than two models, one is no TFLite flatbuffer, or the options are none.
        """
        wanted = CompilerOptions.from_json(self.require_options(options))
        orders = group.orders(members)
        for member in members:
            try:
                flatbuffer.read_subgraphs(member.tflite)
            except ValueError as error:
                raise ValueError(f"model {member.name} of the group: {error}") from error
        program = _present(find_program(wanted), wanted)
        tried: list[tuple[float, dict[str, CompiledModel]]] = []
        table: list[tuple[tuple[str, ...], float | None]] = []
        failure: CompileError | None = None
        deadline = time.monotonic() + wanted.budget_sec
        for order in orders:
            left = round(deadline - time.monotonic())
            if left < 1:
                _LOGGER.warning("budget_sec is spent after %d of %d orders of the models", len(table), len(orders))
                break
            names = tuple(member.name for member in order)
            try:
                limited = dataclasses.replace(wanted, budget_sec=left)
                compiled = _compiled_in(order, program, limited, directory / ".".join(names) if directory else None)
            except CompileError as error:
                if not (tried or KINDS[error.kind].is_flaky or KINDS[error.kind].may_be_cut):
                    raise  # another order would fail as well
                table.append((names, None))
                failure = error
                continue
            bytes_per_second = group.traffic(compiled, order)
            table.append((names, bytes_per_second))
            tried.append((float("inf") if bytes_per_second is None else bytes_per_second, compiled))
        if not tried and failure is not None:
            raise failure
        least, models = min(tried, key=lambda one: one[0])
        traffic = None if least == float("inf") else least
        return group.CompiledGroup(models=models, traffic_bytes_per_second=traffic, orders=tuple(table))

    def compile_segments(self, tflite: bytes, options: str, directory: Path | None = None) -> group.CompiledGroup:
        """Compiles a model as several files, each for an Edge TPU of its own, in a pipeline.

        Args:
          tflite: An integer-only TFLite flatbuffer.
          options: JSON of `CompilerOptions`, with `num_segments`.
          directory: Where to keep what the compiler wrote; None for nowhere.

        Raises:
          CompileError: If the compiler fails, or there is none.
          ValueError: If the bytes are no TFLite flatbuffer, or the options are none, or of one segment.
        """
        wanted = CompilerOptions.from_json(options)
        if wanted.num_segments < 2:
            raise ValueError("num_segments: got 1, expected 2 or more; call compile for one file")
        flatbuffer.read_subgraphs(tflite)
        outcome = drive(_present(find_program(wanted), wanted), wanted, {_MODEL: tflite}, directory)
        models = {}
        for i, file_name in enumerate(output_names({_MODEL: tflite}, wanted.num_segments)):
            part = outcome.run.files.get(file_name.replace("_edgetpu", ""), outcome.run.files[file_name])
            name = file_name.removesuffix("_edgetpu.tflite")
            models[name] = compiled_model(outcome, i, file_name, part, wanted)
        return group.CompiledGroup(models=models)


TARGET = EdgeTpu()


def _compiled_in(
    order: Sequence[group.GroupMember], program: Program, options: CompilerOptions, directory: Path | None
) -> dict[str, CompiledModel]:
    """Compiles models together, in this order."""
    files = {f"{member.name}.tflite": member.tflite for member in order}
    outcome = drive(program, options, files, directory)
    return {
        member.name: compiled_model(outcome, i, file_name, member.tflite, options)
        for i, (member, file_name) in enumerate(zip(order, output_names(files), strict=True))
    }


def _present(program: Program | None, options: CompilerOptions) -> Program:
    if program is None:
        name = options.container_runtime if options.image else options.compiler
        kind = KINDS["missing_compiler"]
        raise CompileError(f"{name} is not on PATH: {kind.sentence}; {kind.fix}", kind="missing_compiler")
    return program
