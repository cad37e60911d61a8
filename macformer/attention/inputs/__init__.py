"""Transformations of queries and keys before an attention: norm guard, learnt scale."""
