"""Batches: a function of seed and step, padded, trimmed or kept on the device."""
