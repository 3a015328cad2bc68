"""The Helm chart, rendered by Helm: valid for Kubernetes, and right about the service."""

import base64
import json
import re
from pathlib import Path
from typing import Any

import kubernetes_validate
import pytest
import yaml

from scripts.chart_schema import settings_properties
from service.config import PREFIX, ServiceSettings
from service.security.api_keys import KeyRing
from tests.support.chart import (
    CHART,
    NAMESPACE,
    RELEASE,
    VALUES,
    Object,
    environment,
    of_kind,
    pods,
    refusal,
    render,
    run_helm,
    server,
    values_file,
)
from tests.support.paths import ROOT

KUBERNETES = ("1.29", "1.33", "1.37")  # the oldest that the chart takes, and the newest
OPERATORS = {"monitoring.coreos.com/v1"}  # not Kubernetes' own
VOLUMES = {"configMap", "downwardAPI", "emptyDir", "persistentVolumeClaim", "projected", "secret"}
ALERTS = ROOT / "deploy" / "prometheus" / "alerts.yml"


@pytest.mark.parametrize("name", VALUES)
def test_helm_has_nothing_to_say_against_it(name: str) -> None:
    done = run_helm("lint", "--strict", CHART, *values_file(name))
    assert done.returncode == 0, done.stdout + done.stderr
    assert "WARNING" not in done.stdout


@pytest.mark.parametrize("version", KUBERNETES)
@pytest.mark.parametrize("name", VALUES)
def test_every_object_is_valid_for_kubernetes(name: str, version: str) -> None:
    for one in render(name):
        if one["apiVersion"] not in OPERATORS:
            kubernetes_validate.validate(one, version, strict=True)


@pytest.mark.parametrize("name", VALUES)
def test_every_pod_keeps_to_the_restricted_standard(name: str) -> None:
    """Kubernetes' Pod Security Standards, `restricted`, and a root that nobody writes to."""
    assert list(pods(render(name)))
    for _, template in pods(render(name)):
        pod = template["spec"]
        security = pod["securityContext"]
        assert not {"hostNetwork", "hostPID", "hostIPC", "hostUsers"} & pod.keys()
        assert security["runAsNonRoot"] is True
        assert security["runAsUser"] > 0
        assert security["seccompProfile"] == {"type": "RuntimeDefault"}
        assert not {"sysctls", "seLinuxOptions", "windowsOptions"} & security.keys()
        assert pod["automountServiceAccountToken"] is False
        assert pod["enableServiceLinks"] is False
        for volume in pod.get("volumes", []):
            assert volume.keys() - {"name"} <= VOLUMES, volume
        for container in [*pod["containers"], *pod.get("initContainers", [])]:
            assert container["securityContext"] == {
                "allowPrivilegeEscalation": False,
                "readOnlyRootFilesystem": True,
                "capabilities": {"drop": ["ALL"]},
            }
            assert not [port for port in container.get("ports", []) if "hostPort" in port]
            for part in ("requests", "limits"):
                assert container["resources"][part].keys() >= {"cpu", "memory"}
            for probe in ("startupProbe", "livenessProbe", "readinessProbe"):
                assert "host" not in container.get(probe, {}).get("httpGet", {})


@pytest.mark.parametrize("name", VALUES)
def test_what_is_mounted_is_there_and_what_is_there_is_mounted(name: str) -> None:
    objects = render(name)
    claims = {one["metadata"]["name"] for one in objects if one["kind"] == "PersistentVolumeClaim"}
    used = set()
    for _, template in pods(objects):
        pod = template["spec"]
        containers = [*pod["containers"], *pod.get("initContainers", [])]
        mounted = {mount["name"] for one in containers for mount in one.get("volumeMounts", [])}
        volumes = {volume["name"]: volume for volume in pod.get("volumes", [])}
        assert mounted == volumes.keys()
        for volume in volumes.values():
            used.add(volume.get("persistentVolumeClaim", {}).get("claimName"))
    assert claims <= used


@pytest.mark.parametrize("name", VALUES)
def test_whatever_selects_pods_selects_those_of_this_release(name: str) -> None:
    objects = render(name)
    labels = {kind: template["metadata"]["labels"] for kind, template in pods(objects)}
    made = server(objects)
    servers = labels[made["kind"]]
    selectors = [made["spec"]["selector"]["matchLabels"]]
    selectors.append(of_kind(objects, "Service")["spec"]["selector"])
    selectors += [
        one["spec"]["selector"]["matchLabels"]
        for one in objects
        if one["kind"] == "PodDisruptionBudget"
    ]
    for selector in selectors:
        assert selector.items() <= servers.items()
        for other in [labels["Pod"], *([labels["CronJob"]] if "CronJob" in labels else [])]:
            assert not selector.items() <= other.items()
    for one in objects:
        if one["kind"] == "NetworkPolicy":
            meant = labels["CronJob"] if one["metadata"]["name"].endswith("-backup") else servers
            assert one["spec"]["podSelector"]["matchLabels"].items() <= meant.items()
        if one["kind"] == "ServiceMonitor":
            service = of_kind(objects, "Service")["metadata"]["labels"]
            assert one["spec"]["selector"]["matchLabels"].items() <= service.items()


@pytest.mark.parametrize("name", VALUES)
def test_every_port_is_the_one_that_the_server_listens_on(name: str) -> None:
    objects = render(name)
    (container,) = server(objects)["spec"]["template"]["spec"]["containers"]
    assert container["ports"] == [{"name": "http", "containerPort": 3000, "protocol": "TCP"}]
    (port,) = of_kind(objects, "Service")["spec"]["ports"]
    assert (port["name"], port["targetPort"]) == ("http", "http")
    probes = {
        probe: container[f"{probe}Probe"]["httpGet"]
        for probe in ("startup", "liveness", "readiness")
    }
    assert {one["port"] for one in probes.values()} == {"http"}
    assert [one["path"] for one in probes.values()] == ["/livez", "/livez", "/readyz"]
    for one in objects:
        if one["kind"] == "Ingress":
            (path,) = one["spec"]["rules"][0]["http"]["paths"]
            assert path["backend"]["service"] == {
                "name": of_kind(objects, "Service")["metadata"]["name"],
                "port": {"name": "http"},
            }
        if one["kind"] == "ServiceMonitor":
            assert [end["port"] for end in one["spec"]["endpoints"]] == ["http"]


@pytest.mark.parametrize("name", VALUES)
def test_every_variable_is_a_setting_that_the_service_takes(
    name: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    given = environment(render(name))
    names = {f"{PREFIX}{setting.upper()}" for setting in ServiceSettings.model_fields}
    assert {one for one in given if one.startswith(PREFIX)} <= names
    for variable, value in given.items():
        monkeypatch.setenv(variable, value)
    settings = ServiceSettings.from_environment()
    assert settings.gallery.parent.as_posix() == "/data"
    assert settings.create == (name not in ("full-values", "readers-values"))


def test_values_arrive_as_they_were_written(monkeypatch: pytest.MonkeyPatch) -> None:
    for variable, value in environment(render("full-values")).items():
        monkeypatch.setenv(variable, value)
    settings = ServiceSettings.from_environment()
    assert (settings.drain_s, settings.workers, settings.max_wait_s) == (20.5, 4, 0.25)
    assert settings.max_body_bytes == 20971520  # Helm itself would write 2.097152e+07
    assert settings.formats == ("jpeg", "png")
    assert [str(one) for one in settings.trusted_proxies] == ["10.0.0.0/8"]
    assert settings.api_keys_file is not None


def test_the_schema_of_the_settings_is_that_of_the_service() -> None:
    """``python -m scripts.chart_schema`` writes it."""
    schema = json.loads((CHART / "values.schema.json").read_text())
    assert schema["properties"]["settings"]["properties"] == settings_properties()


@pytest.mark.parametrize(
    ("wrong", "said"),
    [
        ("galery.size=1Gi", "galery"),
        ("gallery.sizes=1Gi", "sizes"),
        ("settings.max_boddy_bytes=5", "max_boddy_bytes"),
        ("settings.max_queue=0", "max_queue"),
        ("settings.log_level=loud", "log_level"),
        ("settings.model=/elsewhere", "model"),
        ("settings.drain_s=null", "drain_s"),
        ("gallery.mode=both", "mode"),
        ("gallery.folder=a/b", "folder"),
        ("image.digest=latest", "digest"),
        ("backup.schedule=daily", "schedule"),
        ("user=0", "user"),
        ("gallery.accessMode=ReadWriteMany", "accessMode"),
        ("autoscaling.enabled=true", "autoscaling.enabled needs gallery.mode=readOnly"),
        ("gallery.mode=readOnly", "gallery.mode=readOnly needs gallery.existingClaim"),
        ("gallery.restoreFrom=monday", "gallery.restoreFrom needs backup.existingClaim"),
        ("model.existingClaim=models", "model.existingClaim needs model.path"),
        ("apiKeys.toml=a,apiKeys.existingSecret=b", "apiKeys takes toml or existingSecret"),
        (
            "gallery.accessMode=ReadWriteOncePod,backup.enabled=true",
            "backup.enabled needs gallery.accessMode=ReadWriteOnce",
        ),
        (
            "gallery.mode=readOnly,gallery.existingClaim=a,backup.enabled=true",
            "backup.enabled needs gallery.mode=writable",
        ),
        (
            "gallery.mode=readOnly,gallery.existingClaim=a,gallery.restoreFrom=b",
            "not both",
        ),
        (
            "gallery.mode=readOnly,gallery.existingClaim=a,autoscaling.enabled=true,"
            "autoscaling.minReplicas=9",
            "autoscaling.minReplicas is above",
        ),
    ],
)
def test_what_cannot_be_meant_is_refused_with_a_sentence(wrong: str, said: str) -> None:
    assert said in refusal(wrong)


def test_nothing_of_the_values_is_left_open() -> None:
    """A misspelt name is refused everywhere but in what is Kubernetes' own or free text."""
    schema = json.loads((CHART / "values.schema.json").read_text())
    free = {"labels", "annotations", "podLabels", "podAnnotations", "nodeSelector"}
    kubernetes = {"resources", "affinity", "global"}

    def walk(name: str, one: dict[str, Any]) -> None:
        if one.get("type") != "object":
            return
        if name not in free | kubernetes:
            assert one.get("additionalProperties") is False, name
        for below, field in one.get("properties", {}).items():
            walk(below, field)

    walk("values", schema)
    assert (
        schema["properties"].keys() - {"global"}
        == yaml.safe_load((CHART / "values.yaml").read_text()).keys()
    )


@pytest.mark.parametrize("name", VALUES)
def test_a_stop_is_given_longer_than_the_longest_request(name: str) -> None:
    objects = render(name)
    given = {key.removeprefix(PREFIX).lower(): value for key, value in environment(objects).items()}
    longest = sum(float(given[one]) for one in ("drain_s", "request_timeout_s", "answer_timeout_s"))
    grace = server(objects)["spec"]["template"]["spec"]["terminationGracePeriodSeconds"]
    assert grace >= longest + 10
    readiness = server(objects)["spec"]["template"]["spec"]["containers"][0]["readinessProbe"]
    noticed = readiness["periodSeconds"] * readiness["failureThreshold"]
    assert float(given["drain_s"]) > noticed + readiness["timeoutSeconds"]


def test_a_gallery_that_is_written_to_has_one_pod_and_no_budget() -> None:
    objects = render("full-values")
    assert server(objects)["kind"] == "StatefulSet"
    assert server(objects)["spec"]["replicas"] == 1
    # So that a rollback replaces a pod that never became ready (Kubernetes' docs: forced rollback).
    assert server(objects)["spec"]["podManagementPolicy"] == "Parallel"
    kinds = {one["kind"] for one in objects}
    assert not kinds & {"PodDisruptionBudget", "HorizontalPodAutoscaler", "Deployment"}
    for one in objects:
        if one["kind"] == "PersistentVolumeClaim":
            assert one["metadata"]["annotations"]["helm.sh/resource-policy"] == "keep"


def test_readers_are_many_cannot_write_and_are_never_all_away() -> None:
    objects = render("readers-values")
    spec = server(objects)["spec"]
    (container,) = spec["template"]["spec"]["containers"]
    assert server(objects)["kind"] == "Deployment"
    assert "replicas" not in spec  # the autoscaler's
    (data,) = [one for one in container["volumeMounts"] if one["mountPath"] == "/data"]
    assert data["readOnly"] is True
    assert of_kind(objects, "PodDisruptionBudget")["spec"]["maxUnavailable"] == 1
    scaler = of_kind(objects, "HorizontalPodAutoscaler")["spec"]
    assert scaler["scaleTargetRef"]["name"] == server(objects)["metadata"]["name"]
    assert (scaler["minReplicas"], scaler["maxReplicas"]) == (3, 12)


def test_one_reader_has_no_budget_that_would_keep_its_node_from_being_drained() -> None:
    sets = ("gallery.mode=readOnly", "gallery.existingClaim=shared", "replicas=1")
    assert not [one for one in render("default", *sets) if one["kind"] == "PodDisruptionBudget"]
    (volume, *_) = server(render("default", *sets))["spec"]["template"]["spec"]["volumes"]
    assert volume["persistentVolumeClaim"] == {"claimName": "shared", "readOnly": True}


def test_a_gpu_is_asked_for_and_nothing_else_is_computed_on() -> None:
    objects = render("gpu-values")
    pod = server(objects)["spec"]["template"]["spec"]
    (container,) = pod["containers"]
    assert container["resources"]["limits"]["nvidia.com/gpu"] == 1
    assert container["image"].endswith("-gpu")
    assert pod["runtimeClassName"] == "nvidia"
    assert pod["nodeSelector"] == {
        "kubernetes.io/arch": "amd64",
        "nvidia.com/gpu.present": "true",
    }
    assert [one["key"] for one in pod["tolerations"]] == ["nvidia.com/gpu"]
    assert environment(objects)["LOOKALIKE_DEVICE"] == "cuda"
    assert (
        environment(render("gpu-values", "settings.device=cuda:0"))["LOOKALIKE_DEVICE"] == "cuda:0"
    )
    assert "nvidia.com/gpu" not in json.dumps(render("default"))
    plain = server(render("default"))["spec"]["template"]["spec"]["containers"][0]["image"]
    assert plain.endswith("-cpu")


def test_only_named_peers_reach_the_server_and_it_calls_nobody() -> None:
    (policy,) = [one for one in render("default") if one["kind"] == "NetworkPolicy"]
    (rule,) = policy["spec"]["ingress"]
    assert rule["ports"] == [{"protocol": "TCP", "port": "http"}]
    assert len(rule["from"]) == 3  # the ingress controller, Prometheus, and Helm's test
    assert policy["spec"]["egress"] == []
    assert sorted(policy["spec"]["policyTypes"]) == ["Egress", "Ingress"]
    (tester,) = [template for kind, template in pods(render("default")) if kind == "Pod"]
    allowed = rule["from"][-1]["podSelector"]["matchLabels"]
    assert allowed.items() <= tester["metadata"]["labels"].items()


def test_traces_are_the_only_thing_that_goes_out() -> None:
    policies = {
        one["metadata"]["name"]: one["spec"]
        for one in render("full-values")
        if one["kind"] == "NetworkPolicy"
    }
    dns, traces = policies["visual"]["egress"]
    assert {port["port"] for port in dns["ports"]} == {53}
    assert traces["ports"] == [{"protocol": "TCP", "port": 4318}]
    assert policies["visual-backup"]["egress"] == policies["visual-backup"]["ingress"] == []


def test_the_hosts_of_the_ingress_are_answered_and_so_is_prometheus() -> None:
    given = environment(render("full-values"))
    assert given["LOOKALIKE_ALLOWED_HOSTS"].split(",") == [
        "search.shop.example",
        "visual",
        f"visual.{NAMESPACE}",
        f"visual.{NAMESPACE}.svc",
        f"visual.{NAMESPACE}.svc.cluster.local",
        "localhost",
        "127.0.0.1",
        "$(POD_IP)",
    ]
    (container,) = server(render("full-values"))["spec"]["template"]["spec"]["containers"]
    assert [one["name"] for one in container["env"]][:2] == ["POD_IP", "LOOKALIKE_ALLOWED_HOSTS"]
    assert "LOOKALIKE_ALLOWED_HOSTS" not in environment(render("default"))
    everywhere = environment(render("full-values", "settings.allowed_hosts={*}"))
    assert everywhere["LOOKALIKE_ALLOWED_HOSTS"] == "*"


def test_a_changed_setting_starts_pods_anew() -> None:
    def checksum(*sets: str) -> str:
        template: Object = server(render("default", *sets))["spec"]["template"]
        return str(template["metadata"]["annotations"]["checksum/settings"])

    assert checksum() == checksum("service.port=81")
    assert checksum() != checksum("settings.max_queue=99")


def test_keys_are_a_secret_that_the_service_can_read(tmp_path: Path) -> None:
    secret = of_kind(render("full-values"), "Secret")
    (tmp_path / "keys").write_bytes(base64.b64decode(secret["data"]["keys.toml"]))
    assert len(KeyRing.load(tmp_path / "keys")) == 1
    pod = server(render("full-values"))["spec"]["template"]["spec"]
    (volume,) = [one for one in pod["volumes"] if one["name"] == "keys"]
    assert volume["secret"] == {"secretName": secret["metadata"]["name"], "defaultMode": 0o440}
    assert not [one for one in render("readers-values") if one["kind"] == "Secret"]


@pytest.mark.parametrize("name", ["full-values", "readers-values"])
def test_the_alerts_are_those_of_the_file_beside(name: str) -> None:
    rule = of_kind(render(name), "PrometheusRule")
    meant = yaml.safe_load(ALERTS.read_text())
    for group in meant["groups"]:
        if name == "readers-values":  # which are meant to be only read
            group["rules"] = [one for one in group["rules"] if one["alert"] != "LookalikeReadOnly"]
        for one in group["rules"]:
            if (
                one["alert"] == "LookalikeReadOnly"
            ):  # of the readers of another release it says nothing
                own = of_kind(render(name), "Service")["metadata"]["name"]
                service = f'namespace="{NAMESPACE}",service="{own}"'
                one["expr"] = f"lookalike_gallery_read_only{{{service}}} == 1"
    assert rule["spec"] == meant
    jobs = set(re.findall(r'job="(\w+)"', ALERTS.read_text()))
    (endpoint,) = of_kind(render(name), "ServiceMonitor")["spec"]["endpoints"]
    assert jobs <= {one["replacement"] for one in endpoint["relabelings"]}


def test_every_name_fits_and_says_which_release_it_is_of() -> None:
    for one in render("default"):
        assert one["metadata"]["name"].startswith(f"{RELEASE}-lookalike")
        assert one["metadata"]["labels"]["app.kubernetes.io/instance"] == RELEASE
    long = "a" * 60
    for one in render("full-values", f"fullnameOverride={long}"):
        assert len(one["metadata"]["name"]) <= 63
    assert of_kind(render("full-values", f"fullnameOverride={long}"), "CronJob")


def test_the_readme_has_a_row_for_every_value() -> None:
    rows = re.findall(
        r"^\| `([\w.]+)`",
        (CHART / "README.md").read_text().partition("\n## Values\n")[2],
        re.MULTILINE,
    )
    named = set(rows)

    def walk(prefix: str, one: Any) -> None:
        for key, value in one.items():
            name = f"{prefix}{key}"
            if name not in named:
                assert isinstance(value, dict), name
                assert value, name
                walk(f"{name}.", value)

    walk("", yaml.safe_load((CHART / "values.yaml").read_text()))
    assert len(rows) == len(named)
