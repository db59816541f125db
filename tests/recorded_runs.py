"""Runs of a pipeline of three trivial components on TFX's own runners, whose artifacts say where they come from.

Equal in all but name and root, so that whatever tells two pipelines apart by less would take one's results for the
other's. Of five runs the second and the fourth repeat the one before, and so come from the cache.
"""

import dataclasses
import hashlib
import logging
import sys
import time
from pathlib import Path

import absl.logging
from tfx.dsl.component.experimental.annotations import InputArtifact, OutputArtifact, Parameter
from tfx.dsl.component.experimental.decorators import component
from tfx.orchestration.pipeline import Pipeline
from tfx.types.standard_artifacts import Examples, Model, ModelBlessing

from pipelines.config import PipelineConfig
from pipelines.configs import load_config
from pipelines.exclusive import exclusive_root
from pipelines.metadata_connection import parse_connection
from pipelines.runners import load_runner

HOLD = "hold"
"""While this file is in a root, a run waits in its first component, and says so by HELD."""
HELD = "held"


@component
def Collect(examples: OutputArtifact[Examples], number: Parameter[int], hold: Parameter[str]) -> None:
    while Path(hold).exists():
        Path(hold).with_name(HELD).touch()
        time.sleep(0.05)
    Path(examples.uri).mkdir(parents=True, exist_ok=True)
    (Path(examples.uri) / "text").write_text(f"{number} at {examples.uri}")


@component
def Train(examples: InputArtifact[Examples], model: OutputArtifact[Model]) -> None:
    text = f"model of {(Path(examples.uri) / 'text').read_text()}"
    Path(model.uri).mkdir(parents=True, exist_ok=True)
    (Path(model.uri) / "text").write_text(text)
    model.set_string_custom_property("sha256", hashlib.sha256(text.encode()).hexdigest())


@component
def Bless(model: InputArtifact[Model], blessing: OutputArtifact[ModelBlessing]) -> None:
    Path(blessing.uri).mkdir(parents=True, exist_ok=True)
    (Path(blessing.uri) / "text").write_text(f"blessing of {(Path(model.uri) / 'text').read_text()}")


def config_of(url: str, name: str, root: Path) -> PipelineConfig:
    """The config of a pipeline of that name; of its own components it has nothing to say."""
    return dataclasses.replace(load_config("digits"), name=name, root=str(root), metadata=url)


def run_once(config: PipelineConfig, runner: str, number: int) -> None:
    """One run; it comes from the cache where the number is that of an earlier one."""
    # Not the root: with it, the parameters of two pipelines would differ.
    collect = Collect(number=number, hold=HOLD)
    train = Train(examples=collect.outputs["examples"])
    bless = Bless(model=train.outputs["model"])
    with exclusive_root(config):
        load_runner(runner).run(
            Pipeline(
                pipeline_name=config.name,
                pipeline_root=config.pipeline_root,
                components=[collect, train, bless],
                enable_cache=True,
                metadata_connection_config=parse_connection(config.metadata_url).configuration(),
                beam_pipeline_args=list(config.beam_pipeline_args),
            )
        )


def main(url: str, name: str, root: str, runner: str, runs: str) -> None:
    """Runs a pipeline several times, in its root as the working directory; TFX's log goes to standard error."""
    logging.basicConfig(level=logging.INFO)
    absl.logging.set_verbosity(absl.logging.INFO)
    for number in range(int(runs)):
        run_once(config_of(url, name, Path(root)), runner, number // 2)


def command(*arguments: str) -> list[str]:
    """The command line of a process that does so: components can't be defined in what Python calls __main__."""
    return [
        sys.executable,
        "-W",
        "ignore",
        "-c",
        "import sys, recorded_runs; recorded_runs.main(*sys.argv[1:])",
        *arguments,
    ]
