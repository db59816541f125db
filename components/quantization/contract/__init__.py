"""What a device needs beside the model: from the raw feature to the integers, and from the integers to real values.

{directory}/
  tflite                  the model; its metadata says who it is
  io_contract.json        inputs and outputs, and how each input is made of raw features
  io_contract.h           the same as C99
  io_contract.py          the same as Python; needs NumPy alone
  golden_vectors.npz      real inputs, and what the model gave for them
  selftest.py             checks all of that on the device; needs NumPy and any TFLite interpreter
  head/                   of a model that was cut: what the client computes of the outputs, as a SavedModel
"""

TFLITE_FILE = "tflite"
CONTRACT_FILE = "io_contract.json"
HEADER_FILE = "io_contract.h"
SNIPPET_FILE = "io_contract.py"
VECTORS_FILE = "golden_vectors.npz"
SELFTEST_FILE = "selftest.py"
HEAD_DIRECTORY = "head"
