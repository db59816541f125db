"""Keeps AutoGraph from rewriting library code.

AutoGraph leaves `keras` alone but knows neither `tf_keras` (before TensorFlow 2.21) nor TensorFlow Transform nor our
own layers, so the first training step of a process rewrites their sources, function by function, which takes longer
than the training of a small model. Their control flow is explicit, as Keras's is; user code is still converted.
"""

from tensorflow.python.autograph.core import config

_LIBRARIES = ("tf_keras", "tensorflow_transform", "components.quantization")


def leave_libraries_alone() -> None:
    """Adds the libraries to AutoGraph's own list of what it does not convert; further calls change nothing."""
    known = {str(rule) for rule in config.CONVERSION_RULES}
    added = [config.DoNotConvert(name) for name in _LIBRARIES]
    config.CONVERSION_RULES = (*(rule for rule in added if str(rule) not in known), *config.CONVERSION_RULES)
