"""The process that supervises the workers, which is BentoML's: what of it we change.

Its control ports are closed. They are on loopback, but take commands from every local user, whoever
it is. And it looks at its workers every second: with BentoML's ten, which no option changes, a
server of two workers would be half a server for that long after one died.
``tests/test_service_contract.py`` tells when a new version undoes this.
"""

import socket
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
        for watcher in watchers:  # as many workers as there will be, whoever said how many
            watcher.env["LOOKALIKE_SERVER_SIZE"] = str(watcher.numprocesses)
        super().__init__(watchers, "inproc://control", "inproc://events", **options)

    def stop(self) -> Any:
        """Leave the listening to the workers, and stop them.

        Whoever connects while they finish what they have is refused at once: this process accepts
        nothing, and would let them wait for a reset.
        """
        for listener in self.sockets.values():
            socket.socket.close(listener)  # its own would remove the path of a Unix socket
        return super().stop()


def adapt_supervisor() -> None:
    """Have BentoML make our supervisor when it makes one in this process."""
    circus.Arbiter = _Arbiter  # type: ignore[misc] # BentoML offers no other way
