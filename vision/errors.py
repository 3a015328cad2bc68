"""What can go wrong between image bytes and a unit vector.

VisionError
├── ImageError                   the caller's image
│   ├── EmptyImageError          no bytes at all
│   ├── UnsupportedImageError    of no format that is taken, or a kind not read
│   ├── TooManyBytesError        more bytes than allowed
│   ├── TooManyPixelsError       more pixels than allowed, or a side too long
│   │   └── CostlyImageError     its pixels take more time or memory than allowed
│   └── CorruptImageError        truncated or damaged
├── CropError                    a crop box outside the image, or empty
├── ModelFolderError             a model folder is missing, damaged, too new, or in the way
├── ExportError                  a model cannot be exported, or not well enough
├── DeviceError                  the device asked for is not there, or too small for the model
├── DeviceMemoryError            the device has no memory left for an image
└── DeviceLostError              the device no longer answers this process, which has to end
"""


class VisionError(Exception):
    """Base of this floor's errors."""


class ImageError(VisionError):
    """The image is not one we accept."""


class EmptyImageError(ImageError):
    """There are no bytes."""


class UnsupportedImageError(ImageError):
    """The content is not of an accepted image format."""


class TooManyBytesError(ImageError):
    """The encoded image is larger than allowed."""


class TooManyPixelsError(ImageError):
    """The image has more pixels than allowed, or a side that is too long."""


class CostlyImageError(TooManyPixelsError):
    """To decode the image takes more time, memory or passes over its pixels than allowed."""


class CorruptImageError(ImageError):
    """The image is truncated or damaged."""


class CropError(VisionError):
    """A crop box lies outside the image or holds no pixel."""


class ModelFolderError(VisionError):
    """A model folder is missing, damaged, of another version, or in the way."""


class ExportError(VisionError):
    """A model cannot be exported for another runtime, or what comes out differs too much."""


class DeviceError(VisionError):
    """The device asked for is not available, or has no room for the model."""


class DeviceMemoryError(VisionError):
    """The device has no memory left for even one image; later it may have."""


class DeviceLostError(VisionError):
    """The device failed in a way that this process cannot recover from: it has to be replaced."""
