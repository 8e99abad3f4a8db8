"""Merged members against full proxies on the same mixtures."""
