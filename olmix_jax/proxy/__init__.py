"""Proxies: one member's model and training step, mapped over the swarm once."""
