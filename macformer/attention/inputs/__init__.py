"""Transformations of queries and keys before an attention, such as the norm guard."""
