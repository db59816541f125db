"""Tasks: the user's side of a pipeline. One file per task, which any importable module may be.

A task is a module with:
  `RAW_FEATURE_SPEC`: how its tf.Examples are parsed, by feature name; checked before a run starts.
  `preprocessing_fn(inputs)`: TensorFlow Transform's: raw features to transformed ones, labels included.
  `build_model(hyperparameters)`: returns a compiled Keras model whose inputs are named after transformed features;
    the argument is a dict of what a Tuner found, empty without one.
  `input_fn(files, feature_spec, batch_size, shuffle_seed)`: one pass over uncompressed TFRecord files of transformed
    tf.Examples, as batches of (features by name, label); shuffled anew in each pass unless the seed is None.
  `write_examples(directory)`, optional: writes the raw TFRecords, where the data can be had from a library.
  `LABELS`, optional: the names of the classes in the order of the model's output, or a dict of them by name of the
    output; they go into the device's contract.
"""

from collections.abc import Mapping, Sequence
from types import ModuleType

from components.quantization import plugins

REQUIRED = ("RAW_FEATURE_SPEC", "preprocessing_fn", "build_model", "input_fn")


def task_path(task: str) -> str:
    """Returns the dotted path of a task's module: of a member of this folder, or of any module if it has a dot.

    Raises:
      ValueError: If there is no such task.
    """
    if "." in task:
        return task
    plugins.require_member(__name__, task, "task")
    return f"{__name__}.{task}"


def load_task(task: str) -> ModuleType:
    """Imports a task and checks that it is complete.

    Raises:
      ValueError: If it cannot be imported or misses a part.
    """
    return plugins.load_user_module(task_path(task), REQUIRED)


def labels(task: str) -> Sequence[str] | Mapping[str, Sequence[str]]:
    """Returns the names of a task's classes; none if it does not say.

    Raises:
      ValueError: As `load_task`.
    """
    found: Sequence[str] | Mapping[str, Sequence[str]] = getattr(load_task(task), "LABELS", ())
    return found
