"""What may be asked for to compute with. Alone here, because settings need it and no numpy."""

from typing import Final, Literal

RuntimeName = Literal["auto", "torch", "openvino"]
RUNTIME_HELP: Final = (
    "auto (the model's export on a CPU, where there is one, else torch), torch or openvino."
)
