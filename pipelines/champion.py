"""Rolls back a pushed model that a later span shows to be too bad, where a run has pushed no better one.

The run has evaluated the last blessed model on its own eval split. Only if that model is what the push directory has as
the latest, something is rolled back: repeated after a kill, or on the next span, nothing happens a second time. The one
that is repeated has the same last blessed model, since the history of pushes says which span a rollback was for. That
something was rolled back is said again then, as a run that was killed could not say it.
"""

import dataclasses
import logging
from collections.abc import Sequence

from components.delivery.history import ROLLBACK, version_before
from components.evaluation.measurements import LAST_BLESSED
from components.push_destination import PushDestination
from pipelines.config import PipelineConfig
from pipelines.metadata import ExecutionRecord
from pipelines.target_plan import ResolvedPlan

_LOGGER = logging.getLogger(__name__)


@dataclasses.dataclass(frozen=True, kw_only=True, slots=True)
class Champion:
    """The last blessed model as a run found it.

    Attributes:
      content_sha256: Of its integer file without what names the run; a compiled file has that of what it was made of.
      value: Its value of the config's first metric on the run's eval split.
    """

    content_sha256: str
    value: float


def champion_of(executions: Sequence[ExecutionRecord], config: PipelineConfig, plan: ResolvedPlan) -> Champion | None:
    """Returns the last blessed model of a target in a run; None if there was none, or it was not evaluated.

    Args:
      executions: Those of the run.
      config: The config.
      plan: The target.
    """
    outputs = {
        (execution.component, key): artifacts[0].properties
        for execution in executions
        for key, artifacts in execution.outputs.items()
        if artifacts
    }
    model = outputs.get((f"last_blessed{plan.suffix}", "model"), {})
    evaluation = outputs.get((f"QuantizedEvaluator{plan.suffix}", "evaluation"), {})
    value = evaluation.get("_".join(filter(None, (LAST_BLESSED, *config.evaluation.headline))))
    if "content_sha256" not in model or not isinstance(value, float):
        return None
    return Champion(content_sha256=str(model["content_sha256"]), value=value)


def roll_back_below(floor: float, champion: Champion, push_uri: str, span: int | None = None) -> str:
    """Makes the version before the champion the latest, if the champion is the latest and below the floor.

    Args:
      floor: The least value that it must have.
      champion: The last blessed model, as it did on the later span.
      push_uri: Where its target's models are pushed.
      span: The newest span of the run; None where examples come in no spans.

    Returns:
      What was done, or why nothing was, as a sentence; empty if the floor is kept or another version is the latest.

    Raises:
      ValueError: If the manifest of the latest version cannot be read.
      OSError: If the history or the pointer cannot be written; tf.errors.OpError likewise.
    """
    if champion.value >= floor:
        return ""
    destination = PushDestination(push_uri)
    latest = destination.latest()
    manifest = destination.manifest(latest) if latest else None
    if manifest is None or manifest.facts.get("content_sha256") != champion.content_sha256:
        return ""
    why = f"{latest} has {champion.value:.4f} on this span, below champion_floor={floor}"
    moves = destination.history()
    there = [move.version for move in moves if not destination.problems(move.version)]
    version = version_before(moves, latest, there)
    if not version:
        return f"not rolled back, as nothing was pushed before: {why}"
    destination.rollback(version, span)
    _LOGGER.warning("rolled back to %s: %s", version, why)
    return f"rolled back to {version}: {why}"


def rolled_back_before(push_uri: str) -> str:
    """Returns that the latest version is so by a rollback, as a sentence; empty if it was pushed last."""
    moves = PushDestination(push_uri).history()
    if len(moves) < 2 or moves[-1].action != ROLLBACK:
        return ""
    return f"{moves[-1].version} is the latest by a rollback from {moves[-2].version}, and nothing was pushed since"
