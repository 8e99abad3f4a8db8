"""Proxies: small models of a swarm. One member's model and training step, mapped over all members."""
