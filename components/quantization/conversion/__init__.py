"""From a trained Keras model or SavedModel to a TFLite file that is proved to be integer-only."""
