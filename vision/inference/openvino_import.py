"""OpenVINO and its quantizer, NNCF, without the parts that report their use to their makers."""

import logging
import sys
import threading
from functools import cache
from types import ModuleType
from typing import Any, Final, cast

# Converters of other formats, which we do not use. Importing `openvino` imports them where it can,
# and they send a message over the network; without them it is also twice as quick. NNCF does
# without the library that sends.
REPORTING: Final = ("openvino.tools.ovc", "openvino_telemetry")
BF16: Final = "BF16"  # OpenVINO's word for a processor that multiplies bfloat16
_making: Final = threading.Lock()


def openvino() -> ModuleType:
    """Return the library, imported when it is first asked for."""
    _block_reports()
    import openvino as library  # noqa: PLC0415 - only where an export is used

    return cast(ModuleType, library)


def core() -> Any:
    """Return OpenVINO's core, the one of this process, which stays until its end.

    The CPU's part of a core gives the thread that makes it another stack for signals, and gives
    back the one before when it ends. Of two that end in the order they were made in, the second
    gives back what the first has freed, and the next signal, such as Ctrl-C, ends the process with
    a segmentation fault.
    """
    with _making:
        return _core()


@cache
def _core() -> Any:
    made = openvino().Core()
    made.get_property("CPU", "FULL_DEVICE_NAME")  # makes the CPU's part, here and now
    return made


def nncf() -> ModuleType:
    """Return NNCF, silent; its import takes seconds and brings torch."""
    _block_reports()
    loggers = logging.getLoggerClass()
    import nncf as library  # noqa: PLC0415 - for exports only

    logging.setLoggerClass(loggers)  # it sets one of its own for the whole process
    library.set_log_level(logging.ERROR)
    return cast(ModuleType, library)


def has_bf16() -> bool:
    """Say whether this machine's processor multiplies bfloat16."""
    return BF16 in core().get_property("CPU", "OPTIMIZATION_CAPABILITIES")


def _block_reports() -> None:
    for name in REPORTING:
        sys.modules.setdefault(name, None)  # type: ignore[arg-type] # "there is no such module"
