"""What the service says of images that came otherwise than it wants them, on every route."""

import base64
import io
from pathlib import Path

import numpy as np
import pytest
from httpx import Client, Response
from PIL import Image

from index.gallery import Gallery
from tests.support.images.pngs import encoded, picture, png
from tests.support.paths import DATA
from tests.support.server.servers import Server, running_server
from vision.formats.detect import FORMATS, in_words

CLIENT = Client(timeout=30)
ROUTES = {
    "/v1/classify": {},
    "/v1/embed": {},
    "/v1/search": {},
    "/v1/search/range": {"min_score": "0.9"},
    "/v1/search/vote": {},
}


def vectors(answer: Response) -> list[list[float]]:
    return [result["vector"] for result in answer.json()["results"]]


@pytest.mark.parametrize("path", ROUTES)
@pytest.mark.parametrize("name", ["file", "img", "photo", "upload", "Image", "image1", "whatever"])
def test_an_image_under_another_name_is_told_which_one_is_wanted(
    server: Server, path: str, name: str
) -> None:
    answer = CLIENT.post(server.url + path, files={name: ("a.png", png(1))}, data=ROUTES[path])

    assert answer.status_code == 400
    assert answer.json()["code"] == "unexpected_field"
    assert answer.json()["detail"] == f"'image' is expected, got {name!r}"


@pytest.mark.parametrize("name", ["file", "url", "image_url", "photo", "data"])
def test_a_member_that_means_the_image_is_told_its_name(server: Server, name: str) -> None:
    text = base64.b64encode(png(1)).decode()
    stored = CLIENT.put(f"{server.url}/v1/items/named", json={name: text})
    answer = CLIENT.post(f"{server.url}/v1/classify", json={name: text})
    many = CLIENT.post(f"{server.url}/v1/items", json={"items": [{"id": "named", name: text}]})

    for problem in (answer.json(), stored.json(), many.json()["results"][0]):
        assert problem["detail"] == f"'image' is expected, got {name!r}"


@pytest.mark.parametrize("name", ["image", "image[]", "images", "images[]"])
def test_several_images_of_a_form_may_have_any_plural_of_the_name(
    server: Server, name: str
) -> None:
    files = [(name, (f"{number}.png", png(number))) for number in range(3)]
    wanted = [("image", one) for _, one in files]

    answer = CLIENT.post(f"{server.url}/v1/embed", files=files)
    expected = CLIENT.post(f"{server.url}/v1/embed", files=wanted)

    assert answer.status_code == 200, answer.text
    np.testing.assert_allclose(vectors(answer), vectors(expected), atol=1e-5)


@pytest.mark.parametrize("path", ROUTES)
def test_every_spelling_of_base64_is_the_same_image(server: Server, path: str) -> None:
    data = png(4) + bytes([62, 250, 255])  # what is behind a PNG's end is not looked at
    text = base64.b64encode(data).decode()
    safe = base64.urlsafe_b64encode(data).decode()
    spellings = [
        text,
        text.rstrip("="),
        safe,
        safe.rstrip("="),
        base64.encodebytes(data).decode(),
        text.replace("A", "A\r\n "),
        f"data:image/png;base64,{text}",
        f"data:application/octet-stream;base64,{safe.rstrip('=')}",
    ]
    fields = {name: float(value) for name, value in ROUTES[path].items()}

    answers = [CLIENT.post(server.url + path, json={"image": one, **fields}) for one in spellings]

    assert [answer.status_code for answer in answers] == [200] * len(spellings)
    kept = [
        {key: one for key, one in answer.json().items() if key not in ("request_id", "timings_ms")}
        for answer in answers
    ]
    assert all(one == kept[0] for one in kept)


@pytest.mark.parametrize(
    ("text", "sentence"),
    [
        ("é", "image is not valid base64"),
        ("AAAAA", "image is not valid base64"),
        ("AAAA====", "image is not valid base64: it ends with too many ="),
        ("AA=A", "image is not valid base64"),
        (" https://example.org/a.png", "image is a URL; this service fetches nothing"),
        ("data:image/png,abc", "image is a data: URI without ;base64"),
    ],
)
def test_what_is_not_base64_is_told_why(server: Server, text: str, sentence: str) -> None:
    answer = CLIENT.post(f"{server.url}/v1/classify", json={"image": text})

    assert answer.status_code == 400
    assert answer.json()["detail"].startswith(sentence)


def test_a_picture_of_a_format_that_is_not_taken_is_told_what_it_is(server: Server) -> None:
    jxl = b"\0\0\0\x0cJXL \r\n\x87\n"
    answer = CLIENT.post(f"{server.url}/v1/classify", content=jxl)

    assert answer.status_code == 415
    assert answer.json()["code"] == "unsupported_image_type"
    assert answer.json()["detail"] == (
        f"this is a JPEG XL picture; {in_words(FORMATS)} is expected: convert it first"
    )


@pytest.mark.parametrize("name", ["phone", "mirrored", "gray"])
def test_a_heic_photo_is_stored_and_found_by_itself(server: Server, name: str) -> None:
    data = (DATA / f"{name}.heic").read_bytes()
    headers = {"Content-Type": "image/heic"}

    stored = CLIENT.put(f"{server.url}/v1/items/{name}", content=data, headers=headers)
    found = CLIENT.post(
        f"{server.url}/v1/search", content=data, headers=headers, params={"k": 1, "min_seq": 1}
    )
    shown = CLIENT.get(f"{server.url}/v1/items/{name}/image")

    assert stored.status_code in (200, 201), stored.text
    assert found.json()["hits"][0]["id"] == name
    assert shown.headers["content-type"] in ("image/png", "image/jpeg")


def test_a_photo_of_a_phone_is_taken_and_a_scan_of_its_size_is_not(server: Server) -> None:
    photo = encoded(picture(5, (800, 600)).resize((8000, 6000)), "JPEG", quality=30)
    scan = encoded(Image.new("L", (8000, 6000)))
    headers = {"Content-Type": "image/jpeg"}

    taken = CLIENT.post(f"{server.url}/v1/classify", content=photo, headers=headers)
    part = CLIENT.post(
        f"{server.url}/v1/search", content=photo, headers=headers, params={"crop": '{"top": 0.9}'}
    )
    refused = CLIENT.post(f"{server.url}/v1/classify", content=scan, headers=headers)

    assert (taken.status_code, part.status_code) == (200, 200)
    assert refused.status_code == 422
    assert "the image has 8000 x 6000 pixels; at most 25000000 are allowed" in refused.text


def test_pixels_of_a_form_field_need_no_file_name(server: Server) -> None:
    text = base64.b64encode(png(6)).decode()
    values = [f"data:image/png;base64,{text}", text]

    answers = [
        CLIENT.post(f"{server.url}/v1/embed", files={"image": (None, one)}) for one in values
    ]
    expected = CLIENT.post(f"{server.url}/v1/embed", files={"image": ("a.png", png(6))})

    for answer in answers:
        assert answer.status_code == 200, answer.text
        np.testing.assert_allclose(vectors(answer), vectors(expected), atol=1e-5)


def test_stored_images_are_as_large_as_their_gallery_keeps_them(server: Server) -> None:
    large = encoded(picture(1, (2400, 3000)), "JPEG", quality=50)
    headers = {"Content-Type": "image/jpeg"}

    def longest_side(item_id: str) -> int:
        stored = CLIENT.put(f"{server.url}/v1/items/{item_id}", content=large, headers=headers)
        assert stored.status_code == 201
        answer = CLIENT.get(f"{server.url}/v1/items/{item_id}/image")
        assert CLIENT.delete(f"{server.url}/v1/items/{item_id}").status_code == 200
        with Image.open(io.BytesIO(answer.content)) as image:
            return max(image.size)

    with Gallery.open(server.log.parent / "gallery", fingerprint=None) as gallery:
        assert longest_side("kept-small") == 256
        gallery.set_thumbnail_side(512)
        assert longest_side("kept-large") == 512
        gallery.set_thumbnail_side(256)
    assert longest_side("kept-small") == 256


def test_a_service_takes_the_formats_that_it_is_told_to(tmp_path: Path, model: Path) -> None:
    options = ("--formats", "PNG, heic")
    heic = (DATA / "phone.heic").read_bytes()
    with running_server(model, tmp_path / "gallery", tmp_path / "log", *options) as server:
        route = f"{server.url}/v1/classify"
        taken = [CLIENT.post(route, content=one).status_code for one in (heic, png(1))]
        refused = CLIENT.post(route, content=encoded(picture(1), "AVIF"))

    assert taken == [200, 200]
    assert (refused.status_code, refused.json()["code"]) == (415, "unsupported_image_type")
    assert refused.json()["detail"] == (
        "this is an AVIF picture, which is not accepted here; PNG or HEIC is expected: "
        "convert it first"
    )
