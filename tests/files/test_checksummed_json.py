"""JSON with a checksum: its layouts are those of all files that were ever written."""

from files.checksummed_json import by_name, checksum, in_one_line, in_order, with_checksum

FIELDS = {"name": "Größe", "b": [1, 2.5], "a": {"y": None, "x": True}}


def test_a_manifest_keeps_the_order_of_its_fields_and_ends_with_its_checksum() -> None:
    assert with_checksum(FIELDS, in_order, name="manifest_sha256").decode() == (
        '{\n  "name": "Größe",\n  "b": [\n    1,\n    2.5\n  ],\n  "a": {\n    "y": null,\n'
        '    "x": true\n  },\n  "manifest_sha256": '
        '"fae2778e485fbafd12893dccbcec15fdc2e0712d2c8821998cce1f69dcaacd4a"\n}\n'
    )


def test_a_checkpoint_is_sorted_by_name() -> None:
    assert with_checksum(FIELDS, by_name, name="sha256").decode() == (
        '{\n "a": {\n  "x": true,\n  "y": null\n },\n "b": [\n  1,\n  2.5\n ],\n'
        ' "name": "Gr\\u00f6\\u00dfe",\n "sha256": '
        '"636366c8a275743a30b5294668481bbb6f790e2610f932c3fc968f9e3394df8f"\n}'
    )


def test_the_checksum_of_a_generation_is_of_one_line() -> None:
    assert checksum(FIELDS, in_one_line) == (
        "ac3900bce2fbb6663d8a953867249cd78c48f25569ee7ffdda17bd514cac80d2"
    )
    assert checksum(dict(reversed(FIELDS.items())), in_one_line) == checksum(FIELDS, in_one_line)
