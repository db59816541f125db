"""From a model file back to everything that made it, and forward to what became of it.

ML Metadata is read by plain calls by id or type, which every build and back end of it has, each with all the ids that
are wanted at once: how many calls there are depends on how deep the pipeline is, not on how much the store holds.
"""
