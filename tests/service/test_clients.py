"""Clients with their defaults: each posts, stores, lists, deletes, idles, and comes back."""

import http.client
import shutil
import subprocess
import time
import urllib.request
from collections.abc import Callable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from pathlib import Path

import httpx
import pytest
import requests  # type: ignore[import-untyped]

from tests.support.images.pngs import encoded, picture, png
from tests.support.server.servers import Server

IDLE_S = 6.0  # longer than the five seconds after which many servers close a connection
RUN_S = 120.0  # for a program to end on the busiest machine
PNG = {"Content-Type": "image/png"}
JSON = {"Content-Type": "application/json"}  # some clients name it whatever they send

# What each client asks, in order, and what it is answered; it is idle before the last.
STEPS = (
    ("POST", "/v1/classify"),
    ("POST", "/v1/search"),
    ("PUT", "/v1/items/{name}"),
    ("GET", "/v1/items?limit=2"),
    ("DELETE", "/v1/items/{name}"),
    ("HEAD", "/v1/model"),
    ("POST", "/v1/classify"),
)
ANSWERS = [200, 200, 201, 200, 200, 200, 200]

JAVA = """
import java.net.URI;
import java.net.http.*;
import java.nio.file.*;

public class Speaker {
    public static void main(String[] told) throws Exception {
        HttpClient client = HttpClient.newHttpClient();
        for (int step = 2; step < told.length; step += 2) {
            if (step + 2 == told.length) Thread.sleep(Long.parseLong(told[1]));
            String method = told[step];
            boolean sends = method.startsWith("P");
            HttpRequest.BodyPublisher body = sends
                ? HttpRequest.BodyPublishers.ofFile(Path.of(told[0]))
                : HttpRequest.BodyPublishers.noBody();
            HttpRequest request = HttpRequest.newBuilder(URI.create(told[step + 1]))
                .header("Content-Type", sends ? "image/png" : "application/json")
                .method(method, body).build();
            System.out.println(
                client.send(request, HttpResponse.BodyHandlers.ofByteArray()).statusCode());
        }
    }
}
"""

NODE = """
import { openAsBlob } from 'node:fs';
const [path, pause, ...steps] = process.argv.slice(2);
for (let step = 0; step < steps.length; step += 2) {
  if (step + 2 === steps.length) await new Promise((go) => setTimeout(go, Number(pause)));
  const sends = steps[step].startsWith('P');
  const picture = await openAsBlob(path);
  const streams = sends && step % 4 === 0;  // every other one in chunks, of no known length
  const answer = await fetch(steps[step + 1], {
    method: steps[step],
    headers: { 'Content-Type': sends ? 'image/png' : 'application/json' },
    body: sends ? (streams ? picture.stream() : picture) : undefined,
    duplex: streams ? 'half' : undefined,
  });
  await answer.arrayBuffer();
  console.log(answer.status);
}
"""


def with_http_client(server: Server, image: Path) -> list[int]:
    connection = http.client.HTTPConnection(server.url.removeprefix("http://"), timeout=RUN_S)
    connection.connect()
    connection.auto_open = 0  # a connection that was closed is an error
    statuses = []
    for method, path in paced("http-client"):
        sends = method.startswith("P")
        body = image.read_bytes() if sends else None
        connection.request(method, path, body, headers=PNG if sends else JSON)
        answer = connection.getresponse()
        answer.read()
        statuses.append(answer.status)
    connection.close()
    return statuses


def with_urllib(server: Server, image: Path) -> list[int]:
    statuses = []
    for method, path in paced("urllib"):
        sends = method.startswith("P")
        body = image.read_bytes() if sends else None
        request = urllib.request.Request(
            server.url + path, body, PNG if sends else JSON, method=method
        )
        with urllib.request.urlopen(request, timeout=RUN_S) as answer:
            statuses.append(answer.status)
    return statuses


def with_requests(server: Server, image: Path) -> list[int]:
    statuses = []
    with requests.Session() as session:
        for method, path in paced("requests"):
            sends = method.startswith("P")
            # An iterator is sent in chunks.
            body = iter([image.read_bytes()]) if sends else None
            answer = session.request(
                method, server.url + path, data=body, headers=PNG if sends else JSON, timeout=RUN_S
            )
            statuses.append(answer.status_code)
        pools = session.get_adapter(server.url).poolmanager.pools
        assert [pools[key].num_connections for key in pools.keys()] == [1]  # noqa: SIM118
    return statuses


def with_httpx(server: Server, image: Path) -> list[int]:
    statuses = []
    with httpx.Client(base_url=server.url, timeout=RUN_S) as client:
        for method, path in paced("httpx"):
            sends = method.startswith("P")
            body = image.read_bytes() if sends else None
            answer = client.request(method, path, content=body, headers=PNG if sends else JSON)
            statuses.append(answer.status_code)
    return statuses


def with_java(server: Server, image: Path) -> list[int]:
    program = image.with_name("Speaker.java")
    program.write_text(JAVA)
    return with_program(["java", str(program)], server, image, name="java")


def with_node(server: Server, image: Path) -> list[int]:
    program = image.with_name("speaker.mjs")
    program.write_text(NODE)
    return with_program(["node", str(program)], server, image, name="node")


def with_program(command: list[str], server: Server, image: Path, *, name: str) -> list[int]:
    steps = [
        word
        for method, path in STEPS
        for word in (method, server.url + path.format(name=f"client-{name}"))
    ]
    told = [*command, str(image), str(int(1000 * IDLE_S)), *steps]
    done = subprocess.run(told, capture_output=True, text=True, timeout=RUN_S, check=False)
    assert done.returncode == 0, done.stderr
    return [int(line) for line in done.stdout.split()]


def paced(name: str) -> Iterator[tuple[str, str]]:
    for number, (method, path) in enumerate(STEPS, start=1):
        if number == len(STEPS):
            time.sleep(IDLE_S)
        yield method, path.format(name=f"client-{name}")


CLIENTS: dict[str, Callable[[Server, Path], list[int]]] = {
    "http.client": with_http_client,
    "urllib": with_urllib,
    "requests": with_requests,
    "httpx": with_httpx,
    "java": with_java,
    "node": with_node,
}
PROGRAMS = ("java", "node", "curl")


def needs(program: str) -> None:
    if program in PROGRAMS and shutil.which(program) is None:
        pytest.skip(f"{program} is not installed: this client is NOT tested")


@pytest.fixture(scope="module")
def told(
    server: Server, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[dict[str, Future[list[int]]]]:
    """What each client was answered; all are idle at the same time."""
    folder = tmp_path_factory.mktemp("clients")
    with ThreadPoolExecutor(len(CLIENTS)) as threads:
        futures = {}
        for seed, (name, client) in enumerate(CLIENTS.items(), start=900):
            if name in PROGRAMS and shutil.which(name) is None:
                continue
            image = folder / name / "picture.png"
            image.parent.mkdir()
            image.write_bytes(png(seed))
            futures[name] = threads.submit(client, server, image)
        yield futures


@pytest.mark.parametrize("name", CLIENTS)
def test_a_client_is_served_as_it_comes(told: dict[str, Future[list[int]]], name: str) -> None:
    needs(name)

    assert told[name].result() == ANSWERS


def curl(*arguments: str, written: str) -> str:
    """Return what curl ``written`` of each request."""
    needs("curl")
    done = subprocess.run(
        ["curl", "-sS", "-o", "/dev/null", "-w", written + "\\n", *arguments],
        capture_output=True,
        text=True,
        timeout=RUN_S,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    return done.stdout


@pytest.mark.parametrize(
    "options",
    [
        ("--http2", "--data-binary"),
        ("--http1.0", "--data-binary"),
        ("--http1.0", "-H", "Expect: 100-continue", "--data-binary"),
        ("-H", "Expect: 100-continue", "--data-binary"),
        ("-H", "Transfer-Encoding: chunked", "--data-binary"),
        ("--http2", "-H", "Transfer-Encoding: chunked", "--data-binary"),
    ],
    ids=" ".join,
)
@pytest.mark.parametrize("path", ["/v1/classify", "/v1/search"])
def test_curl_is_served_as_it_comes(
    server: Server, tmp_path: Path, path: str, options: tuple[str, ...]
) -> None:
    image = tmp_path / "large.bmp"  # more than a megabyte, for which curl asks before it sends
    image.write_bytes(encoded(picture(910, (800, 600)), "BMP"))

    answer = curl(
        *("-X", "POST", "-H", "Content-Type: image/bmp", *options, f"@{image}"),
        server.url + path,
        written="%{http_code}",
    )

    assert answer == "200\n"


def test_curl_stores_a_stream_and_deletes_it(server: Server) -> None:
    needs("curl")
    url = f"{server.url}/v1/items/client-curl"
    stored = subprocess.run(
        ["curl", "-sS", "-o", "/dev/null", "-w", "%{http_code}", "-T", "-", url],
        input=png(911),
        capture_output=True,
        timeout=RUN_S,
        check=True,
    )

    deleted = curl(
        "-X", "DELETE", "-H", "Content-Type: application/json", url, written="%{http_code}"
    )

    assert (stored.stdout, deleted) == (b"201", "200\n")


def test_curl_comes_back_on_the_same_connection(server: Server) -> None:
    url = f"{server.url}/v1/items?limit=1"

    answers = curl(
        *("--rate", "10/m", url, "-o", "/dev/null", url),
        written="%{http_code} %{num_connects}",
    )

    assert answers.split() == ["200", "1", "200", "0"]
