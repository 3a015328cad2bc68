"""What commands print: other people's text, shown as it is."""

from cli.support.console import stdout


def test_an_id_with_colons_is_printed_as_it_is() -> None:
    with stdout.capture() as printed:
        stdout.print("fashion-mnist:train:52948")

    assert printed.get() == "fashion-mnist:train:52948\n"
