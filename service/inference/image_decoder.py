"""A task in, its pixels and thumbnail out: here where that is quick, or else in another process."""

from dataclasses import dataclass
from typing import Final

from index.gallery import Gallery
from service.inference.decoder_pool import DecoderPool
from service.inference.task import DecodedImage, HeavyImage, Task
from vision.image.limits import ImageLimits
from vision.image.preprocessing import Preprocessing
from vision.image.thumbnail import Thumbnail, thumbnail_of

# Memory of decoding up to which the network's thread decodes by itself: a photo of 2 megapixels.
LIGHT_BYTES: Final = 16 * 2**20


@dataclass(frozen=True, slots=True)
class ImageDecoder:
    """Decodes the images of requests."""

    preprocessing: Preprocessing
    limits: ImageLimits
    gallery: Gallery  # whose thumbnails they become
    processes: DecoderPool

    def decode(self, task: Task, light_only: bool) -> DecodedImage:
        """Decode one image; with ``light_only`` on this thread, else in a process that may end.

        Raises:
            ImageError, CropError: it cannot be used.
            HeavyImage: it would take long on this thread.
        """
        if not light_only:
            return self.processes.decode(task, thumbnail_side=self.gallery.thumbnail_side)
        image = self.preprocessing.decode(
            task.data,
            limits=self.limits,
            crop=task.crop,
            before_pixels=_leave_large,
            before_repair=_leave_damaged,
        )
        thumbnail: Thumbnail | None = None
        if task.with_thumbnail:
            thumbnail = thumbnail_of(
                task.data,
                image,
                self.preprocessing,
                limits=self.limits,
                max_side=self.gallery.thumbnail_side,
            )
        pixels_CHW = self.preprocessing.pixels(image, crop=task.crop)
        return DecodedImage(pixels_CHW=pixels_CHW, thumbnail=thumbnail)


def _leave_large(size: int) -> None:
    if size > LIGHT_BYTES:  # lighter ones are not counted: they come one at a time
        raise HeavyImage


def _leave_damaged() -> None:
    raise HeavyImage
