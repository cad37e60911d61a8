"""The contract of attentions and mixers, as tests for pytest."""
