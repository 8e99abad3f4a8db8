"""Updates of a mixture when the domain set changes: what to keep, what to recompute, and with how many new runs."""
