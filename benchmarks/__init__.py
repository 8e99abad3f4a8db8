"""Benchmarks: one script per claim about speed or quality. Each compares its contenders within one run."""
