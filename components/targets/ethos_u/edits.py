"""What to change in a Keras model whose op Vela leaves to the CPU."""

OF_TYPE = "Operation has tensor with unsupported DataType"
"""What Vela says of an op whose tensors are of a type that the NPU has not, with the type behind it."""
_BY_OP = {
    "ARG_MAX": "end the model before it and take the index in the application",
    "CAST": "feed the integers that the model computes with, and leave the cast out",
    "CUSTOM": "end the model before it and compute the rest in the application",
    "DEPTH_TO_SPACE": "use Conv2DTranspose, or UpSampling2D by 2 and a convolution",
    "DEQUANTIZE": "convert with outputs of type int8 or uint8, so that nothing is dequantized inside the model",
    "DIV": "multiply by the reciprocal, as a constant",
    "GATHER": "use slices with fixed bounds, or a Dense layer on one-hot inputs instead of an embedding",
    "QUANTIZE": "convert with inputs of type int8 or uint8, so that nothing is quantized inside the model",
    "RESIZE_BILINEAR": "enlarge by 2, 4 or 8 at a time, on both axes alike",
    "RESIZE_NEAREST_NEIGHBOR": "enlarge by 2, 4 or 8 at a time, on both axes alike",
}
_ON_U85 = frozenset({"CAST", "DIV", "GATHER"})


def edit(op: str, status: str, family: str) -> str:
    """Returns a suggestion for an op off the NPU, one clause; "" for an op that nothing is known of.

    Args:
      op: Its name.
      status: Why it is not, in the words of Vela.
      family: The NPU, such as "ethos-u55".

    >>> edit("GATHER", "", "ethos-u65")  # doctest: +ELLIPSIS
    'use slices with fixed bounds, ... an embedding; Ethos-U85 takes the op in some forms'
    """
    known = _BY_OP.get(op.partition(" ")[0], "")  # a custom op has its own name behind that
    if not known and status.startswith(OF_TYPE):
        known = "convert the model whole to integers"
    return f"{known}; Ethos-U85 takes the op in some forms" if op in _ON_U85 and family != "ethos-u85" else known
