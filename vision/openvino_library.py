"""OpenVINO and its quantizer, NNCF, without the parts that report their use to their makers."""

import logging
import sys
from types import ModuleType
from typing import Final, cast

# Converters of other formats, which we do not use. Importing `openvino` imports them where it can,
# and they send a message over the network; without them it is also twice as quick. NNCF does
# without the library that sends.
REPORTING: Final = ("openvino.tools.ovc", "openvino_telemetry")
BF16: Final = "BF16"  # OpenVINO's word for a processor that multiplies bfloat16


def openvino() -> ModuleType:
    """Return the library, imported when it is first asked for."""
    _block_reports()
    import openvino as library  # noqa: PLC0415 - only where an export is used

    return cast(ModuleType, library)


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
    return BF16 in openvino().Core().get_property("CPU", "OPTIMIZATION_CAPABILITIES")


def _block_reports() -> None:
    for name in REPORTING:
        sys.modules.setdefault(name, None)  # type: ignore[arg-type] # "there is no such module"
