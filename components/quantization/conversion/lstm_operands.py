"""Positions among the inputs of a UNIDIRECTIONAL_SEQUENCE_LSTM, and how many it has.

https://github.com/tensorflow/tensorflow/blob/v2.16.2/tensorflow/lite/kernels/lstm_shared.h
Gates come as input, forget, cell and output.
"""

SEQUENCE_LSTM = "UNIDIRECTIONAL_SEQUENCE_LSTM"
SOURCE, STATE, CELL = 0, 18, 19
GATES, RECURRENT, BIASES = range(1, 5), range(5, 9), range(12, 16)
PROJECTION, PROJECTION_BIAS, NORMALIZATION = 16, 17, range(20, 24)
COUNTS = (20, 24)
"""Numbers of inputs, without and with layer normalization."""
INTERMEDIATES = 5
"""Four gates, then the hidden values."""
