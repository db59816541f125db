"""Beam's own job server and worker pool, each a process on this machine, as a cluster has them.

    python -m infra.beam_cluster --workers 2

prints how to use them and goes on until it is interrupted. A pipeline is sent to the job server, which has the steps
done by worker processes that the pool starts: by the protocol that the job servers of Flink and Spark speak, too. Beam
says of this job server that it is there to test with, as is this.
"""

import contextlib
import dataclasses
import os
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from pathlib import Path

import click

from components.quantization.process_group import process_group

_START_S = 120
_REPOSITORY = Path(__file__).parents[1]


@dataclasses.dataclass(frozen=True, kw_only=True, slots=True)
class BeamCluster:
    """Where a cluster is.

    Attributes:
      job_endpoint: host:port of the job server.
      worker_pool: host:port of the worker pool.
    """

    job_endpoint: str
    worker_pool: str

    @property
    def options(self) -> tuple[str, ...]:
        """Settings of the Beam runner "portable"."""
        return f"job_endpoint={self.job_endpoint}", "environment=external", f"environment_config={self.worker_pool}"


@contextlib.contextmanager
def beam_cluster(workers: int, logs: Path) -> Iterator[BeamCluster]:
    """Starts a job server and a worker pool, and ends them with all workers.

    Args:
      workers: How many worker processes each job gets.
      logs: Directory for `job_server.log` and `worker_pool.log`.

    Raises:
      RuntimeError: If one of them does not come up.
    """
    job_port, pool_port = _free_ports(2)
    programs = {
        "job_server": ["infra.beam_cluster", "--serve", str(job_port), "--workers", str(workers)],
        "worker_pool": ["apache_beam.runners.worker.worker_pool_main", f"--service_port={pool_port}"],
    }
    with contextlib.ExitStack() as stack:
        for (name, command), port in zip(programs.items(), (job_port, pool_port), strict=True):
            process = stack.enter_context(_running(command, logs / f"{name}.log"))
            _await_port(process, port, logs / f"{name}.log")
        yield BeamCluster(job_endpoint=f"localhost:{job_port}", worker_pool=f"localhost:{pool_port}")


def _running(command: list[str], log: Path) -> contextlib.AbstractContextManager["subprocess.Popen[str]"]:
    # The pool starts workers as "python".
    paths = {"PATH": os.path.dirname(sys.executable), "PYTHONPATH": str(_REPOSITORY)}
    environment = {**os.environ, **{name: f"{path}:{os.environ.get(name, '')}" for name, path in paths.items()}}
    logged = ["/bin/sh", "-c", 'exec "$@" > "$0" 2>&1', str(log), sys.executable, "-W", "ignore", "-m", *command]
    return process_group(logged, env=environment)


def _await_port(process: "subprocess.Popen[str]", port: int, log: Path) -> None:
    until = time.monotonic() + _START_S
    while time.monotonic() < until and process.poll() is None:
        with contextlib.suppress(OSError), socket.create_connection(("localhost", port), timeout=1):
            return
        time.sleep(0.1)
    raise RuntimeError(f"{log.stem} did not come up on port {port}; its log ends with: {log.read_text()[-500:]}")


def _free_ports(count: int) -> list[int]:
    with contextlib.ExitStack() as stack:
        sockets = [stack.enter_context(socket.socket()) for _ in range(count)]
        for one in sockets:
            one.bind(("localhost", 0))
        return [one.getsockname()[1] for one in sockets]


def _serve(port: int, workers: int) -> None:
    """Runs a job server in this process. Beam's own gives each job one worker, whatever it asks for."""
    from apache_beam.runners.portability import local_job_service
    from apache_beam.runners.portability.fn_api_runner import fn_runner

    class Job(local_job_service.BeamJob):  # type: ignore[misc]
        def _invoke_runner(self) -> fn_runner.RunnerResult:
            runner = fn_runner.FnApiRunner(provision_info=self._provision_info)
            runner._num_workers = workers
            return runner.run_via_runner_api(self._pipeline_proto, self.pipeline_options())

    server = local_job_service.LocalJobServicer(beam_job_type=Job)
    server.start_grpc_server(port)
    threading.Event().wait()


@click.command()
@click.option("--workers", type=click.IntRange(min=1), default=2, show_default=True, help="Worker processes of a job.")
@click.option("--logs", type=click.Path(path_type=Path), default=Path("build/beam_cluster"), show_default=True)
@click.option("--serve", type=int, hidden=True)
def main(workers: int, logs: Path, serve: int | None) -> None:
    """Starts a job server and a worker pool on this machine, until it is interrupted."""
    if serve is not None:
        _serve(serve, workers)
        return
    logs.mkdir(parents=True, exist_ok=True)
    with beam_cluster(workers, logs) as cluster, contextlib.suppress(KeyboardInterrupt):
        options = " ".join(f"--beam-option {option}" for option in cluster.options)
        click.echo(f"python -m pipelines run digits --beam portable {options}")
        threading.Event().wait()


if __name__ == "__main__":
    main()
