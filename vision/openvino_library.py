"""OpenVINO, without the part that reports its use to its makers."""

import sys
from types import ModuleType
from typing import Final, cast

# Converters of other formats, which we do not use. Importing `openvino` imports them where it can,
# and they send a message over the network; without them it is also twice as quick.
REPORTING: Final = "openvino.tools.ovc"


def openvino() -> ModuleType:
    """Return the library, imported when it is first asked for."""
    if "openvino" not in sys.modules:
        sys.modules.setdefault(REPORTING, None)  # type: ignore[arg-type] # "there is no such module"
    import openvino as library  # noqa: PLC0415 - only where an export is used

    return cast(ModuleType, library)
