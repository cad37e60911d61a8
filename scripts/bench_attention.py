"""Measure attentions: `bench_attention.py attention=softmax,rmfa_exp length=1024,4096`."""

import sys

from macformer.benchmark.cli import main

if __name__ == "__main__":
    sys.exit(main())
