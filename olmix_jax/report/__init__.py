"""One self-contained page, and three lines for the terminal, from what the other stages left in a workdir."""

from olmix_jax.report.page import build, summary

__all__ = ["build", "summary"]
