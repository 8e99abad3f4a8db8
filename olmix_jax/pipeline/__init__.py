"""The stages of a run, and the runner that runs them in order and skips finished ones."""
