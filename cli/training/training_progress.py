"""A training on standard error: where it is, how well it does, how long it will take."""

from typing import TYPE_CHECKING, Final

from rich.progress import Progress, TaskID

from cli.support.console import print_info, progress

if TYPE_CHECKING:
    from training.fit.train_step import StepReport
    from training.fit.trainer import EpochReport

SMOOTHING: Final = 0.05  # weight of a new step in the shown loss and accuracy


class TrainingProgress:
    """Shows a training on standard error."""

    def __init__(self) -> None:
        self._epochs = 0
        self._display: Progress = progress()
        self._task: TaskID | None = None
        self._loss = 0.0
        self._accuracy = 0.0
        self._steps = 0  # in this epoch
        self._images = 0  # since this process began to train

    def __enter__(self) -> "TrainingProgress":
        self._display.start()
        return self

    def __exit__(self, *exception: object) -> None:
        self._display.stop()

    def embedded(self, done: int, total: int) -> None:
        """Show how far a frozen backbone is with the images."""
        if self._task is None:
            self._task = self._display.add_task("embedding images", total=total, note="")
        elapsed_s = self._display.tasks[self._task].elapsed or 0.0
        rate = f"{done / elapsed_s:,.0f} images/s" if elapsed_s else ""
        self._display.update(self._task, completed=done, total=total, note=rate)

    def started(self, *, epochs: int, epochs_done: int, steps_per_epoch: int) -> None:
        """Show what was done before, and what there is to do."""
        self._epochs = epochs
        self._task = self._display.add_task(
            f"epoch {min(epochs_done + 1, epochs)}/{epochs}",
            total=epochs * steps_per_epoch,
            completed=epochs_done * steps_per_epoch,
            note="",
        )

    def step(self, report: "StepReport") -> None:
        """Show the running loss and accuracy, and the rate."""
        weight = max(SMOOTHING, 1 / (self._steps + 1))
        self._loss += weight * (report.loss - self._loss)
        self._accuracy += weight * (report.correct / report.images - self._accuracy)
        self._steps += 1
        self._images += report.images
        if self._task is not None:
            elapsed_s = self._display.tasks[self._task].elapsed or 0.0
            rate = self._images / elapsed_s if elapsed_s else 0.0
            self._display.update(
                self._task,
                advance=1,
                note=f"loss {self._loss:.3f}, acc {self._accuracy:.1%}, {rate:,.0f} images/s",
            )

    def epoch(self, report: "EpochReport") -> None:
        """Leave one line about the epoch."""
        self._steps = 0
        held_out = ""
        if report.validation_loss is not None and report.validation_accuracy is not None:
            held_out = (
                f"; held out: loss {report.validation_loss:.3f}, "
                f"acc {report.validation_accuracy:.1%}"
            )
        print_info(
            f"epoch {report.epoch}: loss {report.loss:.3f}, acc {report.accuracy:.1%}"
            f"{held_out}; {report.seconds:.0f} s"
        )
        if self._task is not None:
            self._display.update(
                self._task,
                description=f"epoch {min(report.epoch + 1, self._epochs)}/{self._epochs}",
            )
