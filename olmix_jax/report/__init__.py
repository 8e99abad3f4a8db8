"""The report on a workdir: one self-contained HTML page, and a summary of a few lines for the terminal.

``results`` reads the workdir and ``page`` orders the sections. ``*_sections`` write titles and captions, ``*_plots``
draw figures, ``tables`` and ``fact_tables`` make the tables. ``sentences`` writes the headline, ``caveats`` the
warnings.
"""

from olmix_jax.report.page import build, summary

__all__ = ["build", "summary"]
