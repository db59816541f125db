"""What edgetpu_compiler says of an op, word for word.

All of them are in the logs of public compilations; the compiler's documents name none.
"""

MAPPED = "Mapped to Edge TPU"
MORE_THAN_ONE_SUBGRAPH = "More than one subgraph is not supported"
UNSPECIFIED = "Operation is otherwise supported, but not mapped due to some unspecified limitation"
DATA_TYPE = "Operation is working on an unsupported data type"
NOT_SUPPORTED = "Operation not supported"
VERSION = "Operation version not supported"
RANK = "Tensor has unsupported rank (up to 3 innermost dimensions mapped)"
NOT_CONSTANT = "Filter, bias, or other param is not constant at compile-time"
# The last line of a longer message about the batch dimension; the table of operations shows only it.
BATCH = "For example, a fully-connected or softmax layer with 2D output"
# Not of an op: what compilers before 16.0 say of a model that is partly float, and all of one that they cannot read.
NOT_QUANTIZED = "Model not quantized"
NOT_PARSED = "Model could not be parsed"
OF_MODELS = frozenset({NOT_QUANTIZED, NOT_PARSED})
