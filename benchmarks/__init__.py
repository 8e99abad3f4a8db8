"""Benchmarks: a script each, printing ratios measured within one run."""
