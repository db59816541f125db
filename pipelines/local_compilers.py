"""Whether this machine has the compilers that a run on it cannot do without."""

from components.targets import load_target, options_json
from pipelines.config import PipelineConfig


def require_compilers(config: PipelineConfig) -> None:
    """Checks, before anything is trained, that the compilers are here that a plan fails or blesses nothing without.

    Args:
      config: What is to run on this machine.

    Raises:
      ValueError: If some are not; lists them all.
    """
    missing = []
    for plan in config.plans:
        target = load_target(plan.target)
        why = "when_missing='fail'" if plan.when_missing == "fail" else ""
        why = why or ("require_compiled" if plan.gates.require_compiled else "")
        if why and target.compiles and not target.compiler_version(options_json(plan.compiler_options)):
            missing.append(f"{plan.target} ({why})")
    if missing:
        raise ValueError(
            f"the compiler is not on this machine of target {', '.join(missing)}: install it, name it in"
            " compiler_options, or let the model be analysed instead"
        )
