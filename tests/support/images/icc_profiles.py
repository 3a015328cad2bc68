"""ICC profiles for tests, written by their numbers (ICC.1:2001-04): version 2.4, D50."""

import struct
from collections.abc import Callable

import numpy as np

D50 = (0.9642, 1.0, 0.8249)
Curve = Callable[[np.ndarray], np.ndarray]


def _number(value: float) -> bytes:
    return struct.pack(">i", round(value * 65536))


def _xyz(values: tuple[float, float, float]) -> bytes:
    return b"XYZ \0\0\0\0" + b"".join(map(_number, values))


def gamma(exponent: float) -> bytes:
    """Return a curve that raises to a power."""
    return b"curv\0\0\0\0" + struct.pack(">IH", 1, round(exponent * 256)) + b"\0\0"


def _table(curve: Curve) -> bytes:
    values = np.round(65535 * curve(np.linspace(0, 1, 1024))).astype(">u2")
    return b"curv\0\0\0\0" + struct.pack(">I", len(values)) + values.tobytes()


def _srgb_curve(encoded: np.ndarray) -> np.ndarray:
    return np.where(encoded <= 0.04045, encoded / 12.92, ((encoded + 0.055) / 1.055) ** 2.4)


def _profile(
    space: bytes, tags: dict[bytes, bytes], *, device: bytes = b"mntr", pcs: bytes
) -> bytes:
    texts = {
        b"desc": b"desc\0\0\0\0" + struct.pack(">I", 5) + b"test\0" + bytes(12 + 67),
        b"cprt": b"text\0\0\0\0none\0",
        b"wtpt": _xyz(D50),
    }
    at = 128 + 4 + 12 * (len(tags) + len(texts))
    table, data = b"", b""
    for name, content in {**texts, **tags}.items():
        padded = content + bytes(-len(content) % 4)
        table += name + struct.pack(">II", at + len(data), len(content))
        data += padded
    header = struct.pack(">I4sI4s4s4s", at + len(data), bytes(4), 0x02400000, device, space, pcs)
    header += bytes(12) + b"acsp" + bytes(28) + b"".join(map(_number, D50))
    count = struct.pack(">I", len(tags) + len(texts))
    return header.ljust(128, b"\0") + count + table + data


def rgb_profile(primaries: tuple[tuple[float, float, float], ...], curve: bytes) -> bytes:
    """Return the profile of a screen with these primaries, as XYZ under D50."""
    tags = {
        name: _xyz(one) for name, one in zip((b"rXYZ", b"gXYZ", b"bXYZ"), primaries, strict=True)
    }
    return _profile(
        b"RGB ", {**tags, **dict.fromkeys((b"rTRC", b"gTRC", b"bTRC"), curve)}, pcs=b"XYZ "
    )


SRGB = rgb_profile(
    ((0.43607, 0.22249, 0.01392), (0.38515, 0.71687, 0.09708), (0.14307, 0.06061, 0.71410)),
    _table(_srgb_curve),
)
DISPLAY_P3 = rgb_profile(
    ((0.51512, 0.24120, -0.00105), (0.29198, 0.69225, 0.04189), (0.15710, 0.06657, 0.78407)),
    _table(_srgb_curve),
)
ADOBE_RGB = rgb_profile(
    ((0.60974, 0.31111, 0.01947), (0.20528, 0.62567, 0.06087), (0.14919, 0.06322, 0.74457)),
    gamma(563 / 256),
)
PROPHOTO = rgb_profile(
    ((0.79767, 0.28804, 0.0), (0.13519, 0.71188, 0.0), (0.03134, 0.00009, 0.82491)), gamma(1.8)
)


def gray_profile(exponent: float) -> bytes:
    """Return the profile of a gray scale of this gamma, the exponent."""
    return _profile(b"GRAY", {b"kTRC": gamma(exponent)}, pcs=b"XYZ ")


def cmyk_profile() -> bytes:
    """Return the profile of a press that mixes its inks as light is taken away, in CIE Lab."""
    corners = np.stack(np.meshgrid(*[[0.0, 1.0]] * 4, indexing="ij"), axis=-1).reshape(-1, 4)
    lightness = 100 * (1 - corners[:, 3]) * (1 - corners[:, :3].mean(axis=1) * 0.9)
    red, green, blue = ((1 - corners[:, one]) * (1 - corners[:, 3]) for one in range(3))
    lab = np.stack([lightness * 2.55, 128 + 60 * (red - green), 128 + 60 * (green - blue)], axis=1)
    line = np.arange(256, dtype=np.uint8).tobytes()
    identity = b"".join(_number(value) for value in (1, 0, 0, 0, 1, 0, 0, 0, 1))
    lut = b"mft1\0\0\0\0" + bytes([4, 3, 2, 0]) + identity + 4 * line
    lut += np.round(lab).clip(0, 255).astype(np.uint8).tobytes() + 3 * line
    return _profile(b"CMYK", {b"A2B0": lut}, device=b"prtr", pcs=b"Lab ")
