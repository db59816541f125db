"""Training on several devices, or several machines: which strategy, and who writes files.

With multi_worker_mirrored each machine runs the same program with its own TF_CONFIG, as Vertex AI sets it in a custom
job with several worker pools. All of them read all data, train in step and get the same models; the chief alone
publishes them (`is_chief`). Each keeps checkpoints of its own in the directory that it is given: that must be there
again when the worker is started anew, such as a mounted bucket (/gcs/...). If one worker dies, all must be started
again; they go on from the newest checkpoint that all of them have. What a pipeline's task runs on each machine is
components/training_worker.py.
"""

import functools
import json
import os
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import tensorflow as tf

_TF_CONFIG = "TF_CONFIG"


def make_strategy(distribution: str, batch_size: int) -> tf.distribute.Strategy:
    """Makes the strategy of a training.

    Call it before anything else runs in TensorFlow where several machines train: they must find each other first.

    Args:
      distribution: "none", "mirrored" or "multi_worker_mirrored"; see TrainingParameters.
      batch_size: Examples of a step over all replicas, which must share them out evenly.

    Raises:
      ValueError: If TF_CONFIG is wrong, comes too late, or the batch cannot be shared out.
    """
    if distribution == "none":
        return tf.distribute.get_strategy()
    if distribution == "mirrored":
        # Without accelerators it mirrors over the logical CPU devices, of which there is one unless configured.
        kind = "GPU" if tf.config.list_logical_devices("GPU") else "CPU"
        strategy = _mirrored(tuple(device.name for device in tf.config.list_logical_devices(kind)))
    else:
        _check_cluster(os.environ.get(_TF_CONFIG, ""))
        try:
            strategy = tf.distribute.MultiWorkerMirroredStrategy()
        except RuntimeError as error:
            raise ValueError(
                f"distribution multi_worker_mirrored: {error}; make the strategy first (distribution.make_strategy),"
                " before models and data are read"
            ) from error
    replicas = strategy.num_replicas_in_sync
    if batch_size % replicas:
        raise ValueError(
            f"batch_size {batch_size} cannot be shared out evenly over {replicas} replicas; choose a multiple of"
            f" {replicas}: it counts the examples of all replicas together"
        )
    return strategy


@functools.cache
def _mirrored(devices: tuple[str, ...]) -> tf.distribute.Strategy:
    """One for the process: keys of collective ops of another one would clash with its own."""
    return tf.distribute.MirroredStrategy(list(devices))


def reaches_all(examples: Any, replicas: int) -> Any:
    """Returns whether each replica gets an example of a batch; one without would average 0 into what all share.

    TensorFlow rounds the share of a replica up, so that the last ones may find nothing left.

    Args:
      examples: Examples of the batch, an int or a tensor.
      replicas: How many share them.

    >>> [examples for examples in range(1, 10) if not reaches_all(examples, 4)]
    [1, 2, 3, 5, 6, 9]
    """
    share = -(-examples // replicas)
    return (replicas - 1) * share < examples


def is_distributed(strategy: tf.distribute.Strategy) -> bool:
    """Returns whether it is anything but TensorFlow's default strategy."""
    with strategy.scope():
        return bool(tf.distribute.has_strategy())


def outside_of_distribution(strategy: tf.distribute.Strategy, act: Callable[[], None]) -> None:
    """Calls a function where no strategy is in scope: its models and variables are those of one device.

    A scope cannot be left for a while, but it holds in its own thread alone.
    """
    if not is_distributed(strategy):
        act()
        return
    with ThreadPoolExecutor(max_workers=1) as pool:
        pool.submit(act).result()


def worker_dir(directory: Path | None, strategy: tf.distribute.Strategy) -> Path | None:
    """Returns the directory for this worker's checkpoints: one below where there are several workers."""
    resolver = strategy.cluster_resolver
    if directory is None or resolver is None or not resolver.task_type:
        return directory
    return directory / f"{resolver.task_type}-{resolver.task_id}"


def is_chief(strategy: tf.distribute.Strategy) -> bool:
    """Returns whether this process writes logs and outputs; others train along and write nothing.

    True for all but the further workers of multi_worker_mirrored.
    """
    return strategy.cluster_resolver is None or is_chief_task(strategy.cluster_resolver)


def is_chief_task(resolver: tf.distribute.cluster_resolver.ClusterResolver) -> bool:
    """Returns whether this process is the chief of the cluster that it is told of; True where there is none."""
    if not resolver.task_type:
        return True
    has_chief = "chief" in resolver.cluster_spec().jobs
    return bool(resolver.task_type == "chief" or (not has_chief and resolver.task_id == 0))


def least_over_workers(strategy: tf.distribute.Strategy, value: int) -> int:
    """Returns the least of the values that the workers give; all of them must call this at the same point."""
    if strategy.cluster_resolver is None:
        return value

    @tf.function  # type: ignore[untyped-decorator]
    def gathered() -> tf.Tensor:
        def of_replica() -> tf.Tensor:
            return tf.distribute.get_replica_context().all_gather(tf.constant([value], tf.int64), axis=0)

        return strategy.experimental_local_results(strategy.run(of_replica))[0]

    return int(tf.reduce_min(gathered()))


def wait_for_all(strategy: tf.distribute.Strategy) -> None:
    """Returns when all workers have called it: one that ends before the others is taken for lost by them."""
    least_over_workers(strategy, 0)


def _check_cluster(text: str) -> None:
    """TF_CONFIG must describe a cluster and this process's place in it."""
    expected = (
        'expected {"cluster": {"worker": ["host:port", ...]}, "task": {"type": "worker", "index": 0}}; Vertex AI sets'
        " it in custom jobs with several worker pools; on one machine use distribution='mirrored'"
    )
    try:
        config = json.loads(text)
        task = config["task"]
        config["cluster"][task["type"]][int(task["index"])]
    except (ValueError, KeyError, TypeError, IndexError) as error:
        raise ValueError(
            f"distribution multi_worker_mirrored: environment variable {_TF_CONFIG} is {text!r}, {expected}"
        ) from error
