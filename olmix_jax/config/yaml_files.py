"""Read YAML and JSON files strictly. The only module that imports YAML."""

import pathlib
from typing import Any

import yaml

from olmix_jax.utils import files
from olmix_jax.utils.errors import UserError


class _Loader(yaml.SafeLoader):
    """YAML without tags that run code. A repeated key is an error; plain YAML would silently keep the last value."""

    def compose_mapping_node(self, anchor):
        node = super().compose_mapping_node(anchor)
        lines = {}
        for key, _ in node.value:
            if not isinstance(key, yaml.ScalarNode):
                continue
            line = key.start_mark.line + 1
            if key.value in lines:
                raise yaml.YAMLError(f"line {line}: `{key.value}` is already on line {lines[key.value]}; keep one")
            lines[key.value] = line
        return node


def read(path: str | pathlib.Path) -> Any:
    """Return the content of a YAML file, or of a JSON file if its suffix is ``.json``.

    Raises:
      UserError: the file cannot be read, is not valid YAML, or repeats a key.
    """
    path = pathlib.Path(path)
    if path.suffix == ".json":
        return files.read_json(path)
    try:
        return _Loader(path.read_text(encoding="utf-8-sig")).get_single_data()
    except OSError as e:
        raise UserError(f"{path}: cannot be read: {e.strerror}") from e
    except (yaml.YAMLError, UnicodeDecodeError) as e:
        raise UserError(f"{path}: not valid YAML: {' '.join(str(e).split())}") from e


def dumps(content: Any) -> str:
    """Return plain values as YAML, keys in the given order."""
    return yaml.safe_dump(content, sort_keys=False, allow_unicode=True, width=1000)
