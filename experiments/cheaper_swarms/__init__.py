"""Ways to make a swarm cheaper, and whether they keep the ranking of mixtures."""
