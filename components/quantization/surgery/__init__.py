"""Graph surgery: whatever Keras model comes in, as a functional tf_keras model of layers that integers can compute.

Each step is followed by a proof that the model still computes the same function.
"""
