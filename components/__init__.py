"""Steps of a pipeline: TFX wiring in files, plain Python in folders."""
