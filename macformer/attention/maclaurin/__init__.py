"""Attention by random Maclaurin features, its kernels, its samplers and its exact counterpart."""
