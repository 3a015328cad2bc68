"""What crosses between a worker and the process with the network arrives as it was sent."""

import pytest

from service.encoding.messages import Answer, Greeting, Request, failure
from vision.errors import DeviceError, ModelFolderError
from vision.inference.encoder import Runtime
from vision.model.export_accuracy import Difference

DIFFERENCE = Difference(
    images=9,
    cosine_mean=0.99,
    cosine_low=0.9,
    cosine_min=0.8,
    accuracy_torch=None,
    accuracy=None,
)


@pytest.mark.parametrize("difference", [None, DIFFERENCE])
def test_a_greeting_arrives_as_it_was_sent(difference: Difference | None) -> None:
    greeting = Greeting(
        fingerprint="f",
        device="cuda:0",
        runtime=Runtime(name="torch", precision="bf16", difference=difference, note="why"),
        images=32,
        width=128,
        labels=0,
    )
    assert Greeting.read(greeting.to_bytes()) == greeting


def test_requests_and_answers_arrive_as_they_were_sent() -> None:
    assert Request.read(Request(7, is_bulk=True).to_bytes()) == Request(7, is_bulk=True)
    assert Answer.read(Answer(0.25, 128).to_bytes()) == Answer(0.25, 128)


@pytest.mark.parametrize("kind", [DeviceError, ModelFolderError])
@pytest.mark.parametrize("reader", [Answer, Greeting])
def test_an_error_of_ours_arrives_as_itself(kind: type[Exception], reader: type) -> None:
    with pytest.raises(kind, match="a sentence"):
        reader.read(failure(kind("a sentence")))


def test_of_any_other_error_only_that_there_was_one_is_told() -> None:
    with pytest.raises(RuntimeError, match="has logged why") as caught:
        Answer.read(failure(ValueError("/secret/path")))
    assert "secret" not in str(caught.value)


def test_no_other_class_is_made_from_a_message() -> None:
    for name in ("SystemExit", "os", "VisionError.__init__"):
        with pytest.raises(RuntimeError):
            Answer.read(b'f{"error": "%s", "sentence": "x"}' % name.encode())


def test_what_is_no_message_is_refused() -> None:
    for reader, message in ((Request, b"x"), (Request, b"x" * 40)):
        with pytest.raises(ValueError, match="expected"):
            reader.read(message)
    with pytest.raises(EOFError):
        Greeting.read(b"")
