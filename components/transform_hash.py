"""The sha256 by which a TransformGraph is known: the same for all that do the same."""

import hashlib
import itertools
import re
from pathlib import Path

import tensorflow_transform as tft
from google.protobuf import text_format
from tensorflow.core.protobuf import saved_model_pb2

from components.quantization.file_hash import sha256

# TensorFlow numbers functions by what the process did before: "__inference__traced_save_283".
_NUMBER = re.compile(r"(__inference_\w*?)_\d+\b")
# Names that nothing computes with: the first has the path of a temporary file, of a vocabulary's table.
_NAMES = ("shared_name", "_user_specified_name")


def transform_sha256(directory: Path) -> str:
    """Returns the sha256 of a graph and what it learned: constants, variables, vocabularies, the schema behind it.

    Two transforms that do the same have the same, which their files have not. TensorFlow's own fingerprint of a
    SavedModel covers neither the content of vocabularies nor leaves out where they were.

    Args:
      directory: The TransformGraph's local directory.
    """
    saved_model = directory / tft.TFTransformOutput.TRANSFORM_FN_DIR
    parts = [
        *_texts(saved_model / "saved_model.pb"),
        sha256(saved_model / "variables"),
        sha256(saved_model / "assets"),
        sha256(directory / tft.TFTransformOutput.TRANSFORMED_METADATA_DIR),
    ]
    return hashlib.sha256("\0".join(parts).encode()).hexdigest()


def _texts(path: Path) -> list[str]:
    """The graphs, functions and signatures of a SavedModel as text, without what differs from process to process."""
    texts = []
    for meta_graph in saved_model_pb2.SavedModel.FromString(path.read_bytes()).meta_graphs:
        graph, functions = meta_graph.graph_def, meta_graph.graph_def.library.function
        nodes = itertools.chain(graph.node, *(function.node_def for function in functions))
        arguments = itertools.chain(*(function.arg_attr.values() for function in functions))
        for one in itertools.chain(nodes, arguments):
            for name in _NAMES:
                one.attr.pop(name, None)
        in_order = sorted(_text(function) for function in functions)
        graph.library.Clear()
        signatures = meta_graph.signature_def
        texts += [_text(graph), *in_order, *(f"{name} {_text(signatures[name])}" for name in sorted(signatures))]
    return texts


def _text(message: object) -> str:
    return _NUMBER.sub(r"\1", text_format.MessageToString(message))
