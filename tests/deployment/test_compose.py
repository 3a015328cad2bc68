"""compose.yaml is as compose wants it, and what it names is there: files, settings, ports."""

import os
import re
import subprocess
import sys
from pathlib import Path
from typing import Any, Final

import pytest
import yaml

from service.config import PREFIX, ServiceSettings
from service.security.api_keys import KeyRing
from tests.support.deployment.compose import DEPLOY, FILES, environment, read
from tests.support.paths import ROOT
from tests.support.server.servers import clean_environment

IGNORED: Final = ("secrets",)  # what prepare.sh makes


COMPOSE: Final = read("compose.yaml")
SERVICES: Final[dict[str, dict[str, Any]]] = COMPOSE["services"]


def seconds(text: str) -> float:
    found = re.fullmatch(r"(\d+)s", text)
    assert found, text
    return float(found[1])


def test_composes_own_schema_is_content() -> None:
    command = [sys.executable, "-m", "check_jsonschema", "--builtin-schema", "vendor.compose-spec"]
    done = subprocess.run(
        [*command, *(DEPLOY / name for name in FILES)], capture_output=True, text=True, check=False
    )

    assert done.returncode == 0, done.stdout + done.stderr


@pytest.mark.parametrize("name", SERVICES)
def test_a_container_may_do_little(name: str) -> None:
    service = SERVICES[name]

    assert service["read_only"] is True
    assert service["cap_drop"] == ["ALL"]
    assert service["security_opt"] == ["no-new-privileges:true"]
    assert service["restart"] == "unless-stopped"
    assert set(service["deploy"]["resources"]["limits"]) == {"cpus", "memory", "pids"}
    assert not {"privileged", "cap_add", "network_mode", "pid", "devices", "user"} & set(service)
    assert re.search(r":(v?\d+\.\d+\.\d+\S*|cpu\})$", service["image"]), "pinned by version"


@pytest.mark.parametrize("name", SERVICES)
def test_what_is_mounted_is_there_and_read_only(name: str) -> None:
    for mount in SERVICES[name].get("volumes", []):
        source, _, rest = mount.partition(":")
        if not source.startswith("./"):
            assert source in COMPOSE["volumes"], mount
            continue
        assert rest.endswith(":ro"), mount
        if not source.startswith(tuple(f"./{one}" for one in IGNORED)):
            assert (DEPLOY / source).exists(), mount


def test_what_is_named_is_declared_and_used() -> None:
    for kind in ("networks", "secrets"):
        named = [one for service in SERVICES.values() for one in service.get(kind, [])]
        assert set(named) == set(COMPOSE[kind]), kind
    for volume in COMPOSE["volumes"]:
        mounts = [one for service in SERVICES.values() for one in service.get("volumes", [])]
        assert [one for one in mounts if one.startswith(f"{volume}:")], volume


def test_every_variable_is_a_setting_with_a_value_that_can_be_used(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    told = environment(*FILES, site="search.shop.example")
    assert set(told) <= {f"{PREFIX}{name.upper()}" for name in ServiceSettings.model_fields}
    for name, value in told.items():
        monkeypatch.setenv(name, value)

    settings = ServiceSettings.from_environment()

    assert settings.allowed_hosts == ("search.shop.example", "lookalike")
    assert str(settings.api_keys_file) == "/run/secrets/api_keys"


def test_a_stop_has_time_for_the_last_request() -> None:
    settings = ServiceSettings.model_validate({})
    needed = settings.request_timeout_s + settings.drain_s + 15  # to close the gallery

    assert seconds(SERVICES["lookalike"]["stop_grace_period"]) >= needed
    assert seconds(SERVICES["nginx"]["stop_grace_period"]) >= needed


def test_addresses_and_ports_agree() -> None:
    nginx = (DEPLOY / "nginx" / "nginx.conf").read_text()
    prometheus = yaml.safe_load((DEPLOY / "prometheus" / "prometheus.yml").read_text())
    (scrape,) = prometheus["scrape_configs"]

    assert "server lookalike:3000;" in nginx
    assert scrape["static_configs"] == [{"targets": ["lookalike:3000"]}]
    assert scrape["authorization"]["credentials_file"] == "/run/secrets/prometheus_key"
    assert "prometheus_key" in SERVICES["prometheus"]["secrets"]
    inside = [port.rpartition(":")[2] for port in SERVICES["nginx"]["ports"]]
    assert sorted(inside) == sorted(re.findall(r"listen (\d+)", nginx))
    assert set(SERVICES["nginx"]["networks"]) & set(SERVICES["lookalike"]["networks"])
    address = SERVICES["nginx"]["networks"]["service"]["ipv4_address"]
    assert environment("compose.yaml", site="")["LOOKALIKE_TRUSTED_PROXIES"] == address
    paths = [mount.split(":")[1] for mount in SERVICES["nginx"]["volumes"]]
    files = {f"/etc/nginx/{path.name}" for path in (DEPLOY / "nginx").iterdir()}
    assert set(paths) == files | {"/etc/nginx/tls"}


def test_nobody_reaches_the_service_but_through_nginx() -> None:
    assert "ports" not in SERVICES["lookalike"]
    assert "ports" not in SERVICES["prometheus"]
    assert all(port.startswith("127.0.0.1:") for port in SERVICES["grafana"]["ports"])
    for name in SERVICES["lookalike"]["networks"]:
        assert COMPOSE["networks"][name]["internal"] is True
    users = {name for name, one in SERVICES.items() if "service" in one["networks"]}
    assert users == {"lookalike", "nginx"}


def test_grafana_finds_the_dashboard_and_its_numbers_and_lets_nobody_in() -> None:
    provisioning = DEPLOY / "grafana" / "provisioning"
    (provider,) = yaml.safe_load((provisioning / "dashboards" / "lookalike.yaml").read_text())[
        "providers"
    ]
    (source,) = yaml.safe_load((provisioning / "datasources" / "prometheus.yaml").read_text())[
        "datasources"
    ]
    mounts = SERVICES["grafana"]["volumes"]
    told = SERVICES["grafana"]["environment"]

    assert f"./grafana/dashboards:{provider['options']['path']}:ro" in mounts
    assert "./grafana/provisioning:/etc/grafana/provisioning:ro" in mounts
    assert source["url"] == "http://prometheus:9090"
    assert told["GF_SECURITY_ADMIN_PASSWORD__FILE"] == "/run/secrets/grafana_password"
    assert told["GF_AUTH_ANONYMOUS_ENABLED"] == "false"
    assert told["GF_USERS_ALLOW_SIGN_UP"] == "false"


@pytest.fixture(scope="module")
def prepared(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A copy of deploy/ for which prepare.sh was run."""
    folder = tmp_path_factory.mktemp("prepared")
    script = folder / "prepare.sh"
    script.write_bytes((DEPLOY / "prepare.sh").read_bytes())
    done = run(script)
    assert done.returncode == 0, done.stderr
    assert "The first API key, shown this once: lk_" in done.stdout
    return folder


def run(script: Path, *arguments: str) -> subprocess.CompletedProcess[str]:
    told = clean_environment(LOOKALIKE=f"{sys.executable} -m cli.main")
    command = ["sh", str(script), *(arguments or ("search.shop.example",))]
    return subprocess.run(command, capture_output=True, text=True, env=told, check=False)


def test_prepare_makes_all_that_is_mounted(prepared: Path) -> None:
    for secret in COMPOSE["secrets"].values():
        assert (prepared / secret["file"]).read_text().strip()
    for name in ("certificate.pem", "key.pem"):
        assert (prepared / "secrets" / "tls" / name).read_text().startswith("-----BEGIN")
    assert (prepared / ".env").read_text() == "LOOKALIKE_SITE=search.shop.example\n"
    assert (prepared / "secrets").stat().st_mode & 0o777 == 0o700


def test_the_keys_that_it_makes_are_keys(prepared: Path) -> None:
    ring = KeyRing.load(prepared / "secrets" / "api-keys.toml")
    scraper = ring.find((prepared / "secrets" / "prometheus.key").read_text())

    assert len(ring) == 2
    assert scraper is not None
    assert scraper.rights == {"metrics"}


def test_prepare_leaves_what_is_there(prepared: Path) -> None:
    before = {path: path.read_bytes() for path in prepared.rglob("*") if path.is_file()}

    done = run(prepared / "prepare.sh", "other.example")

    assert done.returncode == 0, done.stderr
    assert {path: path.read_bytes() for path in prepared.rglob("*") if path.is_file()} == before


def test_git_keeps_no_secret() -> None:
    ignored = (ROOT / ".gitignore").read_text().splitlines()

    assert {"/deploy/secrets/", "/deploy/.env"} <= set(ignored)


def test_the_script_can_be_run() -> None:
    assert os.access(DEPLOY / "prepare.sh", os.X_OK)
