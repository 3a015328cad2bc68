"""Which images of some data are measured, and why the others are not: in numbers and in words."""

from dataclasses import dataclass
from typing import Literal

from training.formatting import count, listed, plural

Among = Literal["training part", "learnt images", "measured images"]


@dataclass(frozen=True, slots=True, kw_only=True)
class ImageSelection:
    """The images that are measured; the model has learnt from none of them, as far as it says."""

    images: int  # that could have been measured: of the test part, if the data have one
    known: int  # of them, left out because the model has learnt from them
    unknown_classes: tuple[str, ...]  # classes of the data that the model does not have, sorted
    unknown_images: int  # of those classes, left out
    recorded: bool  # whether the model says what it has learnt from
    drawn_of: int  # images of its classes, where these were drawn from them; else 0
    classes: int  # of the measured images; 0: they have none
    among: Among  # what the measured images are searched among

    @property
    def measured(self) -> int:
        """Images that are measured."""
        return self.images - self.known

    def sentences(self) -> tuple[str, ...]:
        """Return what a reader of the figures must know."""
        said: list[str] = []
        if self.known:
            said.append(
                f"{count(self.known)} of {plural(self.images, 'image')} were left out: the model "
                "has learnt from them."
            )
        if self.unknown_classes:
            said.append(
                f"{plural(self.unknown_images, 'image')} of classes that the model does not know "
                f"were left out: {listed(self.unknown_classes)}."
            )
        if not self.recorded:
            drawn = (
                f"of the {plural(self.drawn_of, 'image')}, those {count(self.images)} are measured "
                "that training would keep apart today, and "
                if self.drawn_of
                else ""
            )
            said.append(
                "A model does not say what it has learnt from (it was made by an older version): "
                f"{drawn}it may have learnt from some of the images that are measured."
            )
        if self.among == "measured images":
            of_class = "of every measured class " if self.classes else ""
            said.append(
                f"The data hold no images {of_class}that the model has learnt from: each measured "
                "image was searched among the other measured ones."
            )
            if self.classes == 1:
                said.append(
                    "All of them are of one class, so that a search can only find the right one: "
                    "the figures of search say nothing."
                )
        return tuple(said)
