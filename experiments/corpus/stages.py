"""The stages of the five updates of the paper (section 5.1, Table 5), mirrored domain by domain.

24 topics; 15 programming languages added; six sources added; one source revised; one removed; one partitioned into 21.
``stages/‹n›/`` is the text of a stage, as links to ``packages/`` and ``revised/``, and ``stages/‹n›.json`` its update.
"""

import os
import pathlib
from collections.abc import Mapping

from experiments.corpus import domains
from olmix_jax.utils import files

REVISED, REMOVED, PARTITIONED = "docs:web", "data:tables", "text:translations"
# Twenty languages with much text; the part ``other`` has the rest.
LANGUAGES = tuple("ar ca cs de el es fr hi id it ja ka ko pl pt ru sv tr uk zh".split())
# Files by domain, or the folder of a domain.
_Stage = dict[str, pathlib.Path | list[pathlib.Path]]


def write(folder: pathlib.Path, packages: pathlib.Path, revised: pathlib.Path) -> None:
    """Write the six stages to ``folder``, which is beside ``packages`` and ``revised``."""
    whole = {path.name: path for path in sorted(packages.iterdir())}
    after = {path.name: path for path in sorted((revised / REVISED).iterdir())}
    parts: dict[str, list[pathlib.Path]] = {}
    for path in sorted(whole[PARTITIONED].iterdir()):
        language = path.name.split(".")[-2]
        name = f"{PARTITIONED}:{language if language in LANGUAGES else 'other'}"
        parts.setdefault(name, []).append(path)
    stages: list[tuple[_Stage, dict]] = [({name: whole[name] for name in domains.TOPICS}, {})]

    def update(change: dict, add: Mapping = {}, drop: str = "") -> None:
        before = {name: text for name, text in stages[-1][0].items() if name != drop}
        stages.append((before | add, {"updates": [change]}))

    languages = [f"code:{name}" for name in domains.LANGUAGES]
    update({"add": languages}, {name: whole[name] for name in languages})
    update({"add": list(domains.SOURCES)}, {name: whole[name] for name in domains.SOURCES})
    kept = [path for path in sorted(whole[REVISED].iterdir()) if path.name not in after]
    update({"revise": [REVISED]}, {REVISED: [*kept, *after.values()]})
    update({"remove": [REMOVED]}, drop=REMOVED)
    update({"partition": {PARTITIONED: list(parts)}}, parts, drop=PARTITIONED)
    for number, (stage, change) in enumerate(stages):
        for name, text in stage.items():
            _link(folder / str(number) / name, text)
        if change:
            files.write_json(folder / f"{number}.json", change)


def _link(place: pathlib.Path, text: pathlib.Path | list[pathlib.Path]) -> None:
    """Make ``place`` a relative link to a folder, or a folder of such links to files."""
    for link, target in [(place, text)] if isinstance(text, pathlib.Path) else [(place / p.name, p) for p in text]:
        link.parent.mkdir(parents=True, exist_ok=True)
        link.symlink_to(os.path.relpath(target, link.parent))
