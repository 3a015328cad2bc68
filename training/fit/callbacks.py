"""Somebody who watches a training."""

from typing import Protocol

from training.fit.train_step import StepMetrics
from training.fit.trainer import EpochMetrics


class Observer(Protocol):
    """Told about progress, in the order of events."""

    def started(self, *, epochs: int, epochs_done: int, steps_per_epoch: int) -> None:
        """A training begins, or goes on after ``epochs_done`` epochs."""

    def step(self, report: StepMetrics) -> None:
        """A step is done."""

    def epoch(self, report: EpochMetrics) -> None:
        """An epoch is done and safe on disk."""


class Observers:
    """Several observers, or none, as one."""

    def __init__(self, *observers: Observer) -> None:
        self._observers = observers

    def started(self, *, epochs: int, epochs_done: int, steps_per_epoch: int) -> None:
        """Tell everybody."""
        for observer in self._observers:
            observer.started(
                epochs=epochs, epochs_done=epochs_done, steps_per_epoch=steps_per_epoch
            )

    def step(self, report: StepMetrics) -> None:
        """Tell everybody."""
        for observer in self._observers:
            observer.step(report)

    def epoch(self, report: EpochMetrics) -> None:
        """Tell everybody."""
        for observer in self._observers:
            observer.epoch(report)
