"""Files that let systemd or cron look for new spans every few minutes.

Neither has the environment of the shell that they were written from. What a look needs of it, secrets above all, is
read from a file, in lines such as PGPASSWORD='...': in single quotes, which systemd and sh read alike.
"""

import re
import shlex
import subprocess
from collections.abc import Sequence
from pathlib import Path

# Names of units: https://www.freedesktop.org/software/systemd/man/255/systemd.unit.html
_NAME = re.compile(r"[a-zA-Z0-9:_.-]+")
_VERIFY_LIMIT_S = 60
_ENVIRONMENT_DIR = Path("/etc/tfx-qat")


def environment_file(name: str) -> Path:
    """Returns the file of environment variables of a pipeline; it need not be there."""
    return _ENVIRONMENT_DIR / f"{name}.env"


def systemd_units(name: str, command: Sequence[str], directory: Path, every_minutes: int) -> dict[str, str]:
    """Returns a service and its timer, by the names of their files.

    systemd starts no second instance while one is at work. A hold (status 3) and a stop (143) are no failures.

    Args:
      name: Name of the pipeline.
      command: What looks for spans once.
      directory: Where it is run.
      every_minutes: Minutes from the end of one look to the next.

    Raises:
      ValueError: If the name is none of a unit, or an argument has a line break.
    """
    if not _NAME.fullmatch(name) or any("\n" in word for word in (*command, str(directory))):
        raise ValueError(f"{name!r}, {' '.join(command)!r}: got what no unit of systemd can hold; rename it")
    service = f"""[Unit]
Description=tfx-qat: retrains {name} when a span of examples is complete

[Service]
Type=oneshot
WorkingDirectory={str(directory).replace("%", "%%")}
EnvironmentFile=-{environment_file(name)}
ExecStart={" ".join(map(_systemd_word, command))}
TimeoutStartSec=infinity
SuccessExitStatus=3 143
KillMode=mixed
"""
    timer = f"""[Unit]
Description=tfx-qat: looks for spans of {name}

[Timer]
OnActiveSec=0
OnUnitInactiveSec={every_minutes}min

[Install]
WantedBy=timers.target
"""
    return {f"tfx-qat-{name}.service": service, f"tfx-qat-{name}.timer": timer}


def _systemd_word(word: str) -> str:
    r"""Quotes a word as systemd reads it, which expands specifiers and variables within quotes, too.

    >>> print(_systemd_word('a "b" 100% $HOME'))
    "a \"b\" 100%% $$HOME"
    """
    escaped = word.replace("\\", "\\\\").replace('"', '\\"').replace("%", "%%").replace("$", "$$")
    return f'"{escaped}"'


def verify_systemd(units: Sequence[Path]) -> str:
    """Lets systemd check units; returns a sentence about that.

    Raises:
      ValueError: If it finds something wrong.
    """
    command = ["systemd-analyze", "verify", *map(str, units)]
    try:
        done = subprocess.run(command, capture_output=True, text=True, check=False, timeout=_VERIFY_LIMIT_S)
    except (OSError, subprocess.TimeoutExpired) as error:
        return f"not checked: systemd-analyze: {error}"
    mine = [line for line in done.stderr.splitlines() if any(unit.name in line for unit in units)]
    if done.returncode and mine:
        raise ValueError(f"systemd-analyze verify ended with {done.returncode}: {' '.join(mine)}")
    return f"not checked: {done.stderr.strip()}" if done.returncode else "checked by systemd-analyze verify"


def crontab(name: str, command: Sequence[str], directory: Path, lock: Path, every_minutes: int) -> str:
    """Returns a line of a crontab; `flock` keeps a look from starting while another is at work.

    Args:
      name: Name of the pipeline.
      command: What looks for spans once.
      directory: Where it is run.
      lock: A file that is locked meanwhile; made if it is not there, its directory too.
      every_minutes: Minutes between two looks: a divisor of 60, as cron counts within the hour.

    Raises:
      ValueError: If cron cannot count so.
    """
    if 60 % every_minutes:
        raise ValueError(f"--every-minutes {every_minutes}: cron counts within the hour; choose a divisor of 60")
    file = shlex.quote(str(environment_file(name)))
    environment = f"if [ -e {file} ]; then set -a; . {file}; set +a; fi"
    words = f"mkdir -p {shlex.quote(str(lock.parent))} && exec flock -n {shlex.quote(str(lock))} {shlex.join(command)}"
    line = f"cd {shlex.quote(str(directory))} && {environment} && {words}".replace("%", "\\%")  # to cron a line break
    minutes = "*" if every_minutes == 1 else f"*/{every_minutes}" if every_minutes < 60 else "0"
    return f"# tfx-qat: retrains {name} when a span of examples is complete\n{minutes} * * * * {line}\n"
