"""Gives every component that computes in Beam the arguments of its runner."""

from collections.abc import Sequence

from tfx.dsl.components.base import base_node, executor_spec

from pipelines.config import PipelineConfig


def set_beam_arguments(components: Sequence[base_node.BaseNode], config: PipelineConfig) -> None:
    """Gives them the arguments of the config's Beam runner, or of the component's own.

    Not by TFX's arguments of a pipeline: a component's would be put behind those, and what is left of another runner's
    before them would count as well.

    Raises:
      ValueError: If a component has a runner of its own but computes nothing in Beam, a runner's workers cannot see the
        config's directories, or have no image; all of it at once.
    """
    specs = {
        component.id: component.executor_spec
        for component in components
        if isinstance(component.executor_spec, executor_spec.BeamExecutorSpec)
    }
    image = config.deployment.image
    uris = {"root": config.root, "examples": config.spans.pattern if config.spans else config.examples_uri}
    wrong = [
        f"component_beam names {name}, no component that computes in Beam; there are {', '.join(specs)}"
        for name in sorted(set(config.component_beam) - set(specs))
    ]
    runners = {id_: config.component_beam.get(id_, config.beam) for id_ in specs}
    wrong += [
        f"Beam's runner {runner.name}: {problem}"
        for runner in dict.fromkeys(runners.values())
        for problem in runner.problems_in(uris, image)
    ]
    if wrong:
        raise ValueError(f"config {config.name!r}: {'; '.join(wrong)}")
    for id_, spec in specs.items():
        spec.add_beam_pipeline_args(list(runners[id_].arguments(image)))
