"""How far a training is: events in the order in which they happen, told to one callback.

They are told from the thread that trains. Whoever shows them picks those that it knows; any other
event says itself: ``str(event)`` is a line for people.
"""

from collections.abc import Callable
from dataclasses import dataclass
from typing import TypeAlias


class Event:
    """Something that happened in a training."""

    __slots__ = ()


Progress: TypeAlias = Callable[[Event], None]


def ignore(event: Event) -> None:
    """Tell nobody."""


@dataclass(frozen=True, slots=True)
class ImagesDone(Event):
    """So many images were read, or went through a network."""

    what: str  # "reading images"
    done: int
    total: int


@dataclass(frozen=True, slots=True)
class TrainingStarted(Event):
    """A training begins, or goes on after ``epochs_done`` epochs."""

    epochs: int
    epochs_done: int
    steps_per_epoch: int


@dataclass(frozen=True, slots=True)
class StepMetrics(Event):
    """What one step did, over all processes."""

    images: int
    loss: float  # mean over the batch, in nats
    correct: int  # images whose highest score was their (largest) label's, before the update
    gradient_norm: float  # L2 over all parameters, before clipping
    learning_rate: float  # the head's, as used by this step


@dataclass(frozen=True, slots=True, kw_only=True)
class EpochMetrics(Event):
    """What one epoch did, which is safe on disk by now."""

    epoch: int  # 1 is the first
    loss: float  # mean over the epoch's steps, in nats, of augmented images and smoothed labels
    accuracy: float  # of augmented images, each before the step that learnt from it
    validation_loss: float | None  # in nats, held-out images; None when nothing is held out
    validation_accuracy: float | None
    learning_rate: float  # the head's, at the last step
    seconds: float  # wall clock


@dataclass(frozen=True, slots=True)
class CandidateEpoch(Event):
    """A candidate of `auto` that learns is done with an epoch."""

    name: str
    epoch: int  # 1 is the first
    epochs: int
    loss: float  # mean of the epoch, in nats

    def __str__(self) -> str:
        return f"{self.name}: epoch {self.epoch}/{self.epochs}, loss {self.loss:.4f}"
