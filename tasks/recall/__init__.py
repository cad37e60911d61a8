"""Recall: find in the sequence what belongs to a token, which averages of it do not tell."""

from tasks.recall.task import load, prepare_mqar, prepare_selective_copy

__all__ = ["load", "prepare_mqar", "prepare_selective_copy"]
