"""Training of proxies, the small models of a swarm: one member is written once and mapped over all members."""
