"""Train proxies, the small models of a swarm. The code describes one member and is mapped over all members."""
