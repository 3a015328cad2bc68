"""Grafana's dashboard, read by Grafana's own types: nothing in it is unknown, nothing overlaps."""

import copy
import json
from itertools import combinations
from typing import Any, Final

import pytest
from grafana_foundation_sdk.cog import plugins
from grafana_foundation_sdk.cog.encoder import JSONEncoder
from grafana_foundation_sdk.models.dashboard import Dashboard

from tests.support.deployment.prometheus import dashboard

DASHBOARD: Final = dashboard()
PANELS: Final[list[dict[str, Any]]] = DASHBOARD["panels"]
COLUMNS: Final = 24


def unknown(given: Any, kept: Any, path: str = "") -> list[str]:
    """Return where ``given`` says what is not in ``kept``, or something else."""
    if isinstance(given, dict) and isinstance(kept, dict):
        return [
            place
            for name, value in given.items()
            for place in unknown(value, kept.get(name), f"{path}.{name}")
        ]
    if isinstance(given, list) and isinstance(kept, list) and len(given) == len(kept):
        pairs = enumerate(zip(given, kept, strict=True))
        return [place for n, (one, other) in pairs for place in unknown(one, other, f"{path}[{n}]")]
    return [] if given == kept else [path]


@pytest.fixture(scope="module", autouse=True)
def panels_and_queries() -> None:
    """Have the members of panels and of Prometheus' queries read, too."""
    plugins.register_default_plugins()


def read(given: dict[str, Any]) -> Any:
    """Return what Grafana's types keep of a dashboard."""
    return json.loads(JSONEncoder().encode(Dashboard.from_json(copy.deepcopy(given))))


def test_grafana_knows_every_member() -> None:
    assert unknown(DASHBOARD, read(DASHBOARD)) == []


@pytest.mark.parametrize("where", ["panel", "query", "unit", "options"])
def test_a_slip_would_be_seen(where: str) -> None:
    wrong = copy.deepcopy(DASHBOARD)
    panel = next(one for one in wrong["panels"] if one["type"] == "timeseries")
    place = {
        "panel": panel,
        "query": panel["targets"][0],
        "unit": panel["fieldConfig"]["defaults"],
        "options": panel["options"]["legend"],
    }[where]
    place["slip"] = 1

    (found,) = unknown(wrong, read(wrong))

    assert found.endswith(".slip")


def test_panels_have_a_place_of_their_own() -> None:
    ids = [panel["id"] for panel in PANELS]
    assert len(ids) == len(set(ids))
    cells = {
        panel["id"]: {
            (x, y)
            for x in range(panel["gridPos"]["x"], panel["gridPos"]["x"] + panel["gridPos"]["w"])
            for y in range(panel["gridPos"]["y"], panel["gridPos"]["y"] + panel["gridPos"]["h"])
        }
        for panel in PANELS
    }
    for (one, here), (other, there) in combinations(cells.items(), 2):
        assert not here & there, (one, other)
    assert all(x < COLUMNS for covered in cells.values() for x, _ in covered)


@pytest.mark.parametrize("panel", [pytest.param(one, id=str(one["id"])) for one in PANELS])
def test_a_panel_says_what_it_shows_and_takes_the_chosen_source(panel: dict[str, Any]) -> None:
    assert panel["title"]
    if panel["type"] == "row":
        return
    assert panel["description"].endswith(".")
    targets = panel["targets"]
    assert len({target["refId"] for target in targets}) == len(targets) > 0
    for one in (panel, *targets):
        assert one["datasource"] == {"type": "prometheus", "uid": "${datasource}"}
    assert all("$instance" in target["expr"] for target in targets)
