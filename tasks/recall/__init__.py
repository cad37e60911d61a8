"""Recall: find what belongs to a token in the sequence, which averaging cannot do."""

from tasks.recall.task import load, prepare_mqar, prepare_selective_copy

__all__ = ["load", "prepare_mqar", "prepare_selective_copy"]
