"""The process that supervises the workers, which is BentoML's: what of it we change.

Its control ports are closed. They are on loopback, but take commands from every local user, whoever
it is. And it looks at its workers every second: with BentoML's ten, which no option changes, a
server of two workers would be half a server for that long after one died.
``tests/test_service_contract.py`` tells when a new version undoes this.
"""

from typing import Any, Final

from bentoml._internal.utils import circus

from service.errors import ServiceConfigError

CHECK_S: Final = 1


class _Arbiter(circus.Arbiter):
    """BentoML's supervisor, whose commands come from its own process only: by signals."""

    def __init__(
        self, watchers: list[Any], endpoint: str, pubsub_endpoint: str, **options: Any
    ) -> None:
        if options.get("plugins"):
            raise ServiceConfigError(
                "--reload needs a control port, which this service never opens"
            )
        options["check_delay"] = CHECK_S
        super().__init__(watchers, "inproc://control", "inproc://events", **options)


def adapt_supervisor() -> None:
    """Have BentoML make our supervisor when it makes one in this process."""
    circus.Arbiter = _Arbiter  # type: ignore[misc] # BentoML offers no other way
