"""The process that supervises the workers, which is BentoML's: what of it we change.

Its control ports are closed. They are on loopback, but take commands from every local user, whoever
it is. It looks at its workers every second: with BentoML's ten, which no option changes, a server
of two workers would be half a server for that long after one died. And it replaces workers as
``worker_replacement`` says, which BentoML in a container does not, and elsewhere without end.
``tests/service/api/test_contract.py`` tells when a new version undoes this.
"""

import contextlib
import ctypes
import logging
import socket
import struct
from collections.abc import Callable
from pathlib import Path
from typing import Any, Final, NamedTuple, NoReturn

from bentoml._internal.utils import circus
from circus.sockets import CircusSocket  # type: ignore[import-untyped]
from tornado import gen

from files.filesystem import storage_warning
from files.resource_limits import limit_threads, resource_limits
from files.version import VERSION
from service.config import ServiceSettings
from service.errors import ServiceConfigError, SettingError
from service.security.listening_address import check_port, choose_host, warn_if_open
from service.server.ready_workers import ENCODER, ReadyWorkers
from service.server.unix_socket import UnixListener, check_path
from service.server.worker_count import worker_count
from service.server.worker_replacement import WorkerReplacement
from service.telemetry.shared_metrics import shared_folder

logger = logging.getLogger("lookalike.service")

CHECK_S: Final = 1
AGAIN_S: Final = 0.1  # until a stop is tried once more
ENCODER_SOCKET: Final = "LOOKALIKE_ENCODER_SOCKET"  # the variable that tells workers where it is
_SO_ATTACH_FILTER: Final = 26  # of socket(7)
# Classic BPF on the TCP header (bpf(4)): code, jump if so, jump if not, value.
_NO_SYN: Final = (
    (0x30, 0, 0, 13),  # load the byte of flags
    (0x45, 0, 1, 0x02),  # is SYN among them?
    (0x06, 0, 0, 0),  # drop it
    (0x06, 0, 0, 0xFFFFFFFF),  # or take all of it
)


class EncoderProcess(NamedTuple):
    """What runs beside the workers, and computes for them."""

    watcher: Any  # circus's
    listener: Any  # a CircusSocket: where workers connect


class _Arbiter(circus.Arbiter):
    """BentoML's supervisor, whose commands come from its own process only: by signals."""

    server_id: str  # of the server that it supervises
    model: Path | None  # folder of the model that it serves
    # Makes what runs beside so many workers; None: nothing does.
    beside: Callable[[int], EncoderProcess] | None = None

    def __init__(
        self, watchers: list[Any], endpoint: str, pubsub_endpoint: str, **options: Any
    ) -> None:
        if options.get("plugins"):
            refuse_start(
                SettingError("--reload needs a control port, which this service never opens")
            )
        options["check_delay"] = CHECK_S
        settings = ServiceSettings.from_environment()
        ready_workers = ReadyWorkers(shared_folder(self.server_id), size=0)
        self._replacements = []
        for watcher in watchers:
            if watcher.numprocesses == 1:  # nobody else said how many
                watcher.numprocesses = worker_count(settings, self.model)
            watcher.env["LOOKALIKE_WORKERS"] = str(watcher.numprocesses)
            limit_threads(watcher.env)
            self._replacements.append(WorkerReplacement(watcher, ready_workers))
        self._worker_replacements = [*self._replacements]  # without the process beside them
        self._why_it_ended: str | None = None
        try:
            sockets = [_listener(one, settings) for one in options.pop("sockets", ())]
        except ServiceConfigError as error:
            refuse_start(error)
        logger.info("this server may use %s", resource_limits())
        if (warning := storage_warning(settings.gallery)) is not None:
            logger.warning("%s", warning)
        self._add_encoder_process(watchers, sockets)
        super().__init__(
            watchers, "inproc://control", "inproc://events", sockets=sockets, **options
        )

    def _add_encoder_process(self, watchers: list[Any], sockets: list[Any]) -> None:
        """Have one process compute for all workers, and tell them where it is; if there is one."""
        process = None
        if self.beside is not None:
            process = self.beside(sum(watcher.numprocesses for watcher in watchers))
        for watcher in watchers:
            watcher.env.pop(ENCODER_SOCKET, None)
            if process is not None:
                watcher.env[ENCODER_SOCKET] = process.listener.path
        if process is not None:
            limit_threads(process.watcher.env)
            ready = ReadyWorkers(shared_folder(self.server_id) / ENCODER, size=1)
            self._replacements.append(
                WorkerReplacement(process.watcher, ready, who="the process with the network")
            )
            watchers.append(process.watcher)
            sockets.append(process.listener)

    def start(self, cb: Callable[[Any], Any] | None = None) -> None:
        """Supervise until told to stop, or until no worker can be had: then exit with 1."""
        try:
            super().start(cb)
        except RuntimeError:  # circus could start no process at all, and has logged why
            logger.error("the service ends: no worker can be started; the lines above say why")  # noqa: TRY400
            raise SystemExit(1) from None
        if self._why_it_ended is not None:
            raise SystemExit(1)

    def manage_watchers(self) -> Any:
        """Start the workers that are missing, unless one has just failed to start."""
        if self._stopping:
            return None
        self.reap_processes()
        held = [one.watcher for one in self._replacements if not one.look()]
        reasons = [one.reason_to_end() for one in self._replacements]
        self._why_it_ended = next((one for one in reasons if one is not None), None)
        if self._why_it_ended is not None:
            logger.error("%s", self._why_it_ended)
            return self.stop()
        if not held:
            return super().manage_watchers()
        others = [one for one in self.iter_watchers() if one not in held]
        return gen.multi([one.manage_processes() for one in others])

    def reload(self, graceful: bool = True, sequential: bool = False) -> None:
        """On SIGHUP, replace all workers, one after another; BentoML would at once."""
        for one in self._worker_replacements:
            one.replace_all()

    def stop(self) -> Any:
        """Stop the workers, and let nobody connect whom none of them would accept any more.

        While circus starts workers it refuses to stop, and forgets that it was told to.
        """
        if self._stopping:
            return None
        if self._exclusive_running_command is not None:
            self.loop.call_later(AGAIN_S, self.stop)
            return None
        self.loop.call_later(ServiceSettings.from_environment().drain_s, self._shut)
        return super().stop()

    def _shut(self) -> None:
        for listener in self.sockets.values():
            with contextlib.suppress(OSError):  # not TCP, or not Linux
                refuse_connections(listener)
            listener.close()  # the workers have it open still, and the path of a Unix socket goes


def _listener(address: CircusSocket, settings: ServiceSettings) -> CircusSocket:
    """Return what to listen on in place of ``address``, which BentoML's server would listen on.

    Raises:
        ServiceConfigError: nothing can listen there.
    """
    if settings.unix_socket is not None:
        check_path(settings.unix_socket)
        logger.info("lookalike %s starts, behind %s", VERSION, settings.unix_socket)
        return UnixListener(settings.unix_socket, address)
    address.host = choose_host(address.host)
    check_port(address.host, address.port)
    logger.info("lookalike %s starts, on %s port %d", VERSION, address.host, address.port)
    warn_if_open(address.host, has_keys=settings.api_keys_file is not None)
    return address


def refuse_start(error: Exception) -> NoReturn:
    """End this process, which cannot start, and say why.

    The exit code is 2 for the value of a setting, as of a command that is used wrongly, and else 1.
    """
    sentence = str(error)
    if isinstance(error, OSError) and error.strerror:
        sentence = f"{error.filename}: {error.strerror}"
    logger.error("the service cannot start: %s", sentence)
    raise SystemExit(2 if isinstance(error, SettingError) else 1)


def refuse_connections(listener: socket.socket) -> None:
    """Have the kernel drop attempts to connect; handshakes that began are finished.

    When the last process closes a socket that listens, the connections that wait to be accepted are
    reset, with the requests on them. After this no new ones come, so those can be accepted before.
    Who is dropped tries again a second later (RFC 6298), and is refused, or meets the next server.

    Raises:
        OSError: this is no TCP socket, or the kernel has no such filters.
    """
    if listener.family not in (socket.AF_INET, socket.AF_INET6):
        raise OSError("not a TCP socket")
    program = ctypes.create_string_buffer(b"".join(struct.pack("HBBI", *one) for one in _NO_SYN))
    filters = struct.pack("HP", len(_NO_SYN), ctypes.addressof(program))
    listener.setsockopt(socket.SOL_SOCKET, _SO_ATTACH_FILTER, filters)


def adapt_supervisor(
    server_id: str,
    model: Path | None,
    beside: Callable[[int], EncoderProcess] | None = None,
) -> None:
    """Have BentoML make our supervisor when it makes one in this process.

    Args:
        server_id: the same in all processes of the server.
        model: folder of the model that is served.
        beside: makes the process that computes for so many workers; None: they do it themselves.
    """
    _Arbiter.server_id, _Arbiter.model, _Arbiter.beside = server_id, model, beside
    circus.Arbiter = _Arbiter  # type: ignore[misc] # BentoML offers no other way
