"""What to change in a Keras model whose op the Edge TPU does not take, by the compiler's status and by op."""

from components.targets.edge_tpu.log import MAPPED

_BY_OP = {
    "LEAKY_RELU": "use ReLU6, or maximum(x, a * x), of which both ops are mapped",
    "HARD_SWISH": "use ReLU6: tf.keras.layers.ReLU(max_value=6)",
    "ELU": "use ReLU6: tf.keras.layers.ReLU(max_value=6)",
    "GELU": "use ReLU6: tf.keras.layers.ReLU(max_value=6)",
    "DIV": "multiply by the reciprocal, as a constant",
    "ARG_MAX": "end the model before it and take the index in the application",
    "TOPK_V2": "end the model before it and take the largest in the application",
    "CAST": "feed the integers that the model computes with, and leave the cast out",
    "GATHER": "use slices with fixed bounds, or a Dense layer on one-hot inputs instead of an embedding",
    "GATHER_ND": "use slices with fixed bounds",
    "BATCH_MATMUL": "use Dense or 1x1 convolutions, or leave attention to the end of the model",
    "UNPACK": "use slices with fixed bounds",
    "SELECT_V2": "compute both branches and mix them with multiplications and additions",
    "QUANTIZE": "convert with inputs of type int8 or uint8, so that nothing is quantized inside the model",
    "DEQUANTIZE": "convert with outputs of type int8 or uint8, so that nothing is dequantized inside the model",
    "CUSTOM": "end the model before it and compute the rest in the application",
}
_BY_STATUS = {
    "Operation not supported": "replace it with an op that is mapped (the documentation has a list), or move it to the"
    " end of the model",
    "Operation is working on an unsupported data type": "let it work on int8 or uint8: leave casts and float edges out",
    "Model not quantized": "convert all of the model to integers, or take compiler 16",
    "Model could not be parsed": 'convert with profile "edge_tpu", which keeps to older versions, and split a'
    " convolution of groups",
    "Operation version not supported": 'convert with profile "edge_tpu", which keeps to older versions',
    "Tensor has unsupported rank (up to 3 innermost dimensions mapped)": "use a batch of 1 and at most three"
    " dimensions of more than 1",
    "Filter, bias, or other param is not constant at compile-time": "make weights constants instead of results",
    "For example, a fully-connected or softmax layer with 2D output": "use a batch of 1, and split along another axis",
    "Operation is otherwise supported, but not mapped due to some unspecified limitation": "make its tensors smaller,"
    " or move it to the end of the model",
    "More than one subgraph is not supported": "change the op before it that is not mapped",
}


def edit(op: str, status: str) -> str:
    """Returns a suggestion for an op off the Edge TPU, one clause; "" for a status that nothing is known of.

    >>> edit("LEAKY_RELU", "Operation not supported")
    'use ReLU6, or maximum(x, a * x), of which both ops are mapped'
    """
    if status == MAPPED:
        return ""
    of_size = status.startswith(("Tensor has", "For example", "More than", "Operation version", "Model"))
    return (None if of_size else _BY_OP.get(op)) or _BY_STATUS.get(status, "")
