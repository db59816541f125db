"""WHEN a pipeline runs again: spans of data, the ledger of what became of each, and the scheduler that fills it."""
