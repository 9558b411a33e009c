"""Reports as data: what `-o json` and `-o yaml` of every report have in common."""

import json
from typing import Any

import yaml


def to_json(data: Any) -> str:
    """Return data as JSON, in the order of its fields."""
    return json.dumps(data, indent=2, ensure_ascii=False)


def to_yaml(data: Any) -> str:
    """Return data as YAML, in the order of its fields, in lines of about 120 characters."""
    text: str = yaml.safe_dump(data, sort_keys=False, allow_unicode=True, width=120)
    return text
