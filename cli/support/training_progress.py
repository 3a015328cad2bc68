"""A training on standard error: where it is, how well it does, how long it will take."""

from typing import Final

from rich.progress import Progress

from cli.support.console import print_info, progress
from training.progress import EpochMetrics, Event, ImagesDone, StepMetrics, TrainingStarted

SMOOTHING: Final = 0.05  # weight of a new step in the shown loss and accuracy


class TrainingProgress:
    """Shows a training's events on standard error: what goes on as a bar, what is done in lines."""

    def __init__(self) -> None:
        self._bar: Progress | None = None  # of one task, while it goes on
        self._what = ""  # that it shows
        self._epochs = 0
        self._loss = 0.0
        self._accuracy = 0.0
        self._steps = 0  # in this epoch
        self._images = 0  # since this process began to train

    def __enter__(self) -> "TrainingProgress":
        return self

    def __exit__(self, *exception: object) -> None:
        self._end_bar()

    def __call__(self, event: Event) -> None:
        """Show an event."""
        match event:
            case ImagesDone():
                if self._what != event.what:
                    self._begin_bar(event.what, total=event.total)
                self._update(event.done, completed=event.done)
            case TrainingStarted():
                self._show_start(event)
            case StepMetrics():
                self._show_step(event)
            case EpochMetrics():
                self._show_epoch(event)
            case _:
                self._end_bar()
                print_info(str(event))

    def _show_start(self, event: TrainingStarted) -> None:
        """Show what was done before, and what there is to do."""
        self._epochs = event.epochs
        self._begin_bar(
            f"epoch {min(event.epochs_done + 1, event.epochs)}/{event.epochs}",
            total=event.epochs * event.steps_per_epoch,
            completed=event.epochs_done * event.steps_per_epoch,
        )

    def _show_step(self, step: StepMetrics) -> None:
        """Show the running loss and accuracy, and the rate."""
        weight = max(SMOOTHING, 1 / (self._steps + 1))
        self._loss += weight * (step.loss - self._loss)
        self._accuracy += weight * (step.correct / step.images - self._accuracy)
        self._steps += 1
        self._images += step.images
        note = f"loss {self._loss:.3f}, acc {self._accuracy:.1%}, "
        self._update(self._images, note, advance=1)

    def _show_epoch(self, epoch: EpochMetrics) -> None:
        """Leave one line about the epoch."""
        self._steps = 0
        held_out = ""
        if epoch.validation_loss is not None and epoch.validation_accuracy is not None:
            held_out = (
                f"; held out: loss {epoch.validation_loss:.3f}, acc {epoch.validation_accuracy:.1%}"
            )
        print_info(
            f"epoch {epoch.epoch}: loss {epoch.loss:.3f}, acc {epoch.accuracy:.1%}"
            f"{held_out}; {epoch.seconds:.0f} s"
        )
        if self._bar is not None:
            now = min(epoch.epoch + 1, self._epochs)
            self._bar.update(self._bar.task_ids[0], description=f"epoch {now}/{self._epochs}")

    def _begin_bar(self, what: str, *, total: int, completed: int = 0) -> None:
        self._end_bar()
        self._what, self._bar = what, progress()
        self._bar.start()
        self._bar.add_task(what, total=total, completed=completed, note="")

    def _update(
        self,
        images: int,
        note: str = "",
        *,
        advance: int | None = None,
        completed: int | None = None,
    ) -> None:
        """Show how far the task is, and how many images a second it does."""
        if self._bar is None:
            return
        elapsed_s = self._bar.tasks[0].elapsed or 0.0
        rate = f"{images / elapsed_s:,.0f} images/s" if elapsed_s else ""
        task = self._bar.task_ids[0]
        self._bar.update(task, advance=advance, completed=completed, note=note + rate)

    def _end_bar(self) -> None:
        if self._bar is not None:
            self._bar.stop()
            self._bar, self._what = None, ""
