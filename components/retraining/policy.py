"""The rules of retraining."""

import dataclasses


@dataclasses.dataclass(frozen=True, kw_only=True, slots=True)
class RetrainingPolicy:
    """What the scheduler does when all does not go well; what a model must keep is said by the gates.

    Attributes:
      catch_up: Whether all spans that are complete are handled, the oldest first; else the newest alone, and those
        before it are skipped.
      max_failures: A span whose runs failed so often, or could not begin, is quarantined.
      max_interruptions: So is one during whose runs the scheduler died so often: it may exhaust the machine.
      backoff_s: Seconds to wait after a span's first failed run; twice as long after each further one.
      backoff_limit_s: The longest such wait, in seconds.
      run_limit_s: A run that takes longer, in seconds, is killed and has failed.
      hold_after: After so many spans in a row whose model was refused, whose runs failed or whose examples had drifted,
        nothing more is run until someone resumes; 0 for never. Spans whose own examples were broken do not count.
      champion_floor: Where the pushed model's value of the first metric, the more the better, is less than this on the
        eval split of a later run, and that run's model is refused, the version before it is made the latest; 0 for
        never. The last blessed model must be compared with, by a gate or `also_compared`.
      keep_runs: After a run was decided on, the artifacts are removed that neither a pushed model nor any of so many
        last runs needs, and all but so many of the newest logs; 0 for never.
    """

    catch_up: bool = True
    max_failures: int = 3
    max_interruptions: int = 10
    backoff_s: float = 60.0
    backoff_limit_s: float = 3600.0
    run_limit_s: float = 86400.0
    hold_after: int = 0
    champion_floor: float = 0.0
    keep_runs: int = 0

    def __post_init__(self) -> None:
        """Raises ValueError for what is wrong, all of it."""
        wrong = [
            f"{name}={getattr(self, name)} (at least 1)"
            for name in ("max_failures", "max_interruptions")
            if getattr(self, name) < 1
        ]
        if not 0 < self.backoff_s <= self.backoff_limit_s:
            wrong.append(f"backoff_s={self.backoff_s} (more than 0, at most backoff_limit_s={self.backoff_limit_s})")
        if self.run_limit_s <= 0:
            wrong.append(f"run_limit_s={self.run_limit_s} (more than 0)")
        wrong += [
            f"{name}={getattr(self, name)} (at least 0)"
            for name in ("hold_after", "champion_floor", "keep_runs")
            if getattr(self, name) < 0
        ]
        if wrong:
            raise ValueError(f"retraining: {'; '.join(wrong)}")

    def wait_s(self, failures: int) -> float:
        """Returns how long to wait after so many failures, in seconds.

        >>> [RetrainingPolicy(backoff_s=60, backoff_limit_s=200).wait_s(failures) for failures in (1, 2, 3, 99)]
        [60.0, 120.0, 200, 200]
        """
        return min(self.backoff_s * 2.0 ** min(failures - 1, 60), self.backoff_limit_s)
