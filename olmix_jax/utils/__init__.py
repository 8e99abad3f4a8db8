"""Files, records, seeds, progress and errors. Imports no other package of olmix_jax."""
