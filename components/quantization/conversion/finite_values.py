"""Whether all that a function computes from some examples are numbers.

TensorFlow's calibration takes the range of every tensor, and the process ends with a range that is infinite.
"""

import itertools
from collections.abc import Iterable, Mapping
from typing import Any

import numpy.typing as npt
import tensorflow as tf

from components.quantization.conversion.trained_ranges import is_fake_quantization

_EXAMPLES = 64


def non_finite_nodes(definition: Any, examples: Iterable[Mapping[str, npt.NDArray[Any]]]) -> tuple[str, ...]:
    """Returns the nodes that give infinities or what is no number, in the order of the graph.

    What goes into fake quantization alone is left out, which has a range of its own, and so are constants.

    Args:
      definition: Its graph, from `freeze`.
      examples: Values by the names of the tensors that are fed; the first 64 are looked at.
    """
    with tf.Graph().as_default() as graph:
        tf.import_graph_def(definition, name="")
        looked_at = [tensor for operation in graph.get_operations() for tensor in operation.outputs if _counts(tensor)]
        finite = {tensor.op.name: tf.reduce_all(tf.math.is_finite(tensor)) for tensor in looked_at}
        broken: set[str] = set()
        with tf.compat.v1.Session(graph=graph) as session:
            for example in itertools.islice(examples, _EXAMPLES):
                found = session.run(finite, dict(example))
                broken |= {name for name, holds in found.items() if not holds}
    return tuple(name for name in finite if name in broken)


def _counts(tensor: Any) -> bool:
    if tensor.op.type == "Const":  # such as the threshold of a NMS: it is not computed, and not calibrated
        return False
    consumers = tensor.consumers()
    return tensor.dtype == tf.float32 and not (consumers and all(is_fake_quantization(user) for user in consumers))
