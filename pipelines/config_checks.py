"""What must hold of a PipelineConfig, as far as it can be known without TensorFlow."""

import dataclasses
import re
from typing import TYPE_CHECKING

from components.evaluation.measurements import FAKE_QUANT, LAST_BLESSED
from components.quantization.conversion import io_dtypes
from components.quantization.conversion.profiles import load_profile
from components.quantization.schemes import QuantizationScheme, load_scheme
from components.targets import require_target, require_when_missing
from pipelines import tasks
from pipelines.deployment import TRAINER
from pipelines.metadata_connection import parse_connection
from pipelines.target_plan import TargetPlan

if TYPE_CHECKING:
    from pipelines.config import PipelineConfig

OF_ONE_TARGET = ("io_dtype", "when_missing", "compiler_options", "push_dir", "smoke")
"""Fields of a config that are in the plan of each where there are several targets."""
_DEFAULTS = {field.name: getattr(TargetPlan(target=""), field.name, None) for field in dataclasses.fields(TargetPlan)}
# It becomes a part of paths, and the name of a job on a service.
_NAME = re.compile(r"[a-z][a-z0-9-]{0,62}")
_MOST_FLIPPED = 50


def check_config(config: "PipelineConfig") -> None:
    """Raises ValueError for what is wrong."""
    tasks.task_path(config.task)
    if config.metadata:
        parse_connection(config.metadata)
    scheme = load_scheme(config.scheme)
    if not config.targets:
        require_target(config.target)
        load_profile(config.target).check(scheme)
        io_dtypes.require(config.io_dtype, scheme)
        require_when_missing(config.when_missing)
    wrong = _wrong_targets(config, scheme)
    if not scheme.integer_only:
        wrong.append(f"scheme {scheme.name!r} computes in floats (one of integers; `convert` applies this one)")
    if not _NAME.fullmatch(config.name):
        wrong.append(f"name {config.name!r} (lowercase letters, digits and '-', a letter first, at most 63)")
    if not config.root:
        wrong.append("root is empty (a directory)")
    if config.eval_buckets < 2:
        wrong.append(f"eval_buckets={config.eval_buckets} (at least 2, one of them for the eval split)")
    if config.representative_examples < 1:
        wrong.append(f"representative_examples={config.representative_examples} (at least 1)")
    if config.attribution_examples < 0:
        wrong.append(f"attribution_examples={config.attribution_examples} (at least 0)")
    if not 0 <= config.flipped_examples <= _MOST_FLIPPED:
        wrong.append(f"flipped_examples={config.flipped_examples} (0 to {_MOST_FLIPPED}, which a page has room for)")
    if config.latency_runs < 0:
        wrong.append(f"latency_runs={config.latency_runs} (at least 0)")
    if "://" in config.conversion_cache_dir:
        wrong.append(f"conversion_cache_dir {config.conversion_cache_dir!r} (a local directory)")
    if config.spans and config.examples_dir:
        wrong.append(f"examples_dir {config.examples_dir!r} beside spans (one of them)")
    if not config.metrics:
        wrong.append("metrics is empty (the first is the one that a run shows)")
    if any(isinstance(slice_keys, str) for slice_keys in config.slices):
        wrong.append(f"slices={config.slices} (each a tuple of features, such as ('label',))")
    if set(config.also_compared) - {FAKE_QUANT, LAST_BLESSED}:
        wrong.append(f"also_compared={config.also_compared} (some of {FAKE_QUANT!r}, {LAST_BLESSED!r})")
    wrong += _wrong_machines(config)
    if wrong:
        raise ValueError(f"config {config.name!r}: {'; '.join(wrong)}")
    _check_evaluation(config)


def _check_evaluation(config: "PipelineConfig") -> None:
    if config.retraining.champion_floor and "at_least" not in config.evaluation.headline_metric.kinds:
        raise ValueError(
            f"config {config.name!r}: champion_floor, but less is better of the first metric,"
            f" {config.evaluation.headline[1]}; put one first of which more is better"
        )
    for plan in config.plans:
        config.evaluation.require(plan.gates)
        if config.retraining.champion_floor and LAST_BLESSED not in config.compared_models(plan):
            raise ValueError(
                f"config {config.name!r}: champion_floor needs the last blessed model evaluated for {plan.target};"
                f" add {LAST_BLESSED!r} to also_compared"
            )


def _wrong_machines(config: "PipelineConfig") -> list[str]:
    """What does not fit together of how many machines train, and how."""
    machines, training = config.deployment.training_machines, config.training
    if (machines > 1) != (training.distribution == "multi_worker_mirrored"):
        return [
            f"training.distribution={training.distribution!r} with deployment.training_machines={machines}"
            " ('multi_worker_mirrored' with 2 or more, and only with them)"
        ]
    replicas = machines * (config.deployment.resources_of(TRAINER).accelerator_count or 1)
    if machines > 1 and training.batch_size % replicas:
        return [
            f"training.batch_size={training.batch_size} (a multiple of {replicas}, the replicas on {machines} machines)"
        ]
    return []


def _wrong_targets(config: "PipelineConfig", scheme: QuantizationScheme) -> list[str]:
    """What is wrong with `targets`: all of it, each by the target's name."""
    wrong = [f"targets: {plan.target}: {problem}" for plan in config.targets for problem in plan.problems(scheme)]
    names = [plan.target for plan in config.targets]
    twice = sorted({name for name in names if names.count(name) > 1})
    if twice:
        wrong.append(f"targets: {', '.join(twice)} twice (one plan for each)")
    if config.targets:
        given = [name for name in OF_ONE_TARGET if getattr(config, name) != _DEFAULTS[name]]
        if given:
            wrong.append(f"{', '.join(given)} beside targets (in the TargetPlan of each)")
    pushed = [config.target_push_uri(plan) for plan in config.targets]
    if len(set(pushed)) < len(pushed):
        wrong.append("targets: two push into one directory (one push_dir for each)")
    return wrong
