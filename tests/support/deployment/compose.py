"""What compose.yaml and its additions say."""

import re
from typing import Any, Final

import yaml

from tests.support.paths import ROOT

DEPLOY: Final = ROOT / "deploy"
FILES: Final = ("compose.yaml", "compose.gpu.yaml")


def read(name: str) -> dict[str, Any]:
    return dict(yaml.safe_load((DEPLOY / name).read_text()))


def environment(*files: str, site: str) -> dict[str, str]:
    """Return what these files set for the service, with ``site`` for what the operator says."""
    told: dict[str, str] = {}
    for name in files:
        told |= read(name)["services"]["lookalike"].get("environment", {})
    return {name: re.sub(r"\$\{[^}]*\}", site, value) for name, value in told.items()}
