"""What gates hold of a model on its target: before and during a training, and of the candidate."""
