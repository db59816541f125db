"""Quantization-aware training: planning, fake quantization, the training loops and the export."""
