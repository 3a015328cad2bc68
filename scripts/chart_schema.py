"""The service's settings in, the part of the chart's values.schema.json that checks them out.

Run ``python -m scripts.chart_schema`` after a setting was added or changed.
"""

import json
import sys
from pathlib import Path
from typing import Any, Final

from scripts.locks import ROOT
from service.config import ServiceSettings

SCHEMA: Final = Path("deploy/helm/lookalike/values.schema.json")
OWN: Final = frozenset(
    {"model", "gallery", "create", "unix_socket", "api_keys_file"}
)  # the chart's
KEPT: Final = ("type", "minimum", "maximum", "exclusiveMinimum", "enum", "pattern")


def settings_properties() -> dict[str, dict[str, Any]]:
    """Return the JSON schema of each setting that values may give."""
    fields = ServiceSettings.model_json_schema()["properties"]
    return {name: _property(field) for name, field in fields.items() if name not in OWN}


def _property(field: dict[str, Any]) -> dict[str, Any]:
    (kind,) = [one for one in field.get("anyOf", [field]) if one.get("type") != "null"]
    items = {"items": {"type": "string"}} if kind["type"] == "array" else {}
    return {key: kind[key] for key in KEPT if key in kind} | items


def main() -> int:
    """Write the part into the chart; return the exit code."""
    path = ROOT / SCHEMA
    schema = json.loads(path.read_text("utf-8"))
    schema["properties"]["settings"]["properties"] = settings_properties()
    path.write_text(json.dumps(schema, indent=2) + "\n", "utf-8")
    return 0


if __name__ == "__main__":
    sys.exit(main())
