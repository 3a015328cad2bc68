"""The form fields that carry images, and the message for fields that should have been them."""

from collections.abc import Sequence
from typing import Final

IMAGE: Final = "image"
# What a form may call its images; clients in several languages add the brackets.
IMAGE_NAMES: Final = (IMAGE, "image[]", "images", "images[]")
# What clients call an image that is not taken under that name.
_OTHER_NAMES: Final = frozenset(
    (
        *("file", "files", "img", "image", "images", "photo", "photos", "picture", "pictures"),
        *("upload", "uploads", "uploadfile", "uploaded_file", "image_file", "imagefile"),
        *("image_url", "image_base64", "base64", "b64", "data", "content", "url", "media", "blob"),
    )
)
MAX_SHOWN: Final = 60  # characters of a name in a sentence


def unknown_field_message(name: str, known: Sequence[str]) -> str:
    """Return a sentence for a field that is none of the ``known`` ones of a route."""
    if IMAGE in known and name.lower().removesuffix("[]").rstrip("0123456789_-") in _OTHER_NAMES:
        return image_field_hint(name)
    fields = f"the fields are {', '.join(known)}" if known else "there are none"
    return f"{name[:MAX_SHOWN]!r} is not a field here; {fields}"


def image_field_hint(name: str) -> str:
    """Return a sentence for a field that should have been called ``image``."""
    return f"{IMAGE!r} is expected, got {name[:MAX_SHOWN]!r}"
