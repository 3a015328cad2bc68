"""A model folder in, its encoder out: the one place that chooses what computes. Imports no torch.

The export is for the CPU; torch, which takes seconds to import, comes in only where it is used.
"""

import importlib.util
from pathlib import Path
from typing import Final

from vision.errors import DeviceError
from vision.inference.encoder import ImageEncoder
from vision.inference.openvino_encoder import RUNTIME, OpenVinoEncoder
from vision.inference.runtime_name import RuntimeName
from vision.model.export_folder import has_export
from vision.model.manifest import read_manifest

NVIDIA: Final = Path("/dev/nvidiactl")  # there with a driver for NVIDIA's devices


def open_encoder(folder: Path, *, device: str, runtime: RuntimeName, threads: int) -> ImageEncoder:
    """Return the encoder of a model folder; on a CPU it uses ``threads`` threads.

    ``auto`` takes the model's export where there is one and the device is the CPU, and torch
    otherwise. An export that is there and damaged is refused, not passed over.

    Raises:
        ModelFolderError: the folder or the export is missing, damaged, or of another version.
        DeviceError: there is no such device here, or the runtime does not know it.
    """
    if takes_export(folder, device=device, runtime=runtime):
        return OpenVinoEncoder.load(folder, read_manifest(folder), threads=threads)
    import torch  # noqa: PLC0415 - seconds

    from vision.inference.cuda_encoder import CudaEncoder  # noqa: PLC0415
    from vision.inference.torch_encoder import TorchEncoder, pick_device  # noqa: PLC0415

    # Torch's threads wait for one another by spinning, so a server that decodes and speaks HTTP on
    # the same cores is faster when some of them are left to that.
    torch.set_num_threads(threads)
    if pick_device(device).type == "cuda":
        return CudaEncoder.load(folder, device=device)
    return TorchEncoder.load(folder, device=device)


def takes_export(folder: Path, *, device: str, runtime: RuntimeName) -> bool:
    """Say whether ``open_encoder`` would take the model's export.

    Raises:
        DeviceError: the runtime does not know the device.
    """
    if runtime == "openvino" and device not in ("auto", "cpu"):
        raise DeviceError(f"the runtime openvino is for the CPU, not for {device!r}")
    if runtime != "auto":
        return runtime == RUNTIME
    on_cpu = device in ("auto", "cpu") and not _is_gpu(device)
    return on_cpu and has_export(folder, RUNTIME)


def wants_gpu(*, device: str, runtime: RuntimeName) -> bool:
    """Say whether ``open_encoder`` would compute on a GPU, if the one that seems to be here works.

    Imports no torch, so it looks for a driver alone.
    """
    return runtime != RUNTIME and _is_gpu(device)


def _is_gpu(device: str) -> bool:
    """Say whether the device is a GPU; ``auto`` is one where a driver and torch are."""
    if device != "auto":
        return device.startswith("cuda")
    return NVIDIA.exists() and importlib.util.find_spec("torch") is not None
