"""Mixtures and scores of a swarm: domains, sampling, rounding to whole sequences, CSV files."""
