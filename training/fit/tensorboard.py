"""A progress callback that writes what TensorBoard shows: ``tensorboard --logdir FOLDER``."""

from pathlib import Path
from typing import Final

from training.errors import TrainingError
from training.progress import EpochMetrics, Event, StepMetrics, TrainingStarted

STEPS_APART: Final = 10  # steps between two points of a curve


class TensorBoard:
    """Writes curves of steps and epochs into a folder; a resumed training goes on in them."""

    def __init__(self, folder: Path) -> None:
        """Open the folder.

        Raises:
            TrainingError: TensorBoard is not installed, or the folder cannot be written.
        """
        try:
            from torch.utils.tensorboard import SummaryWriter  # noqa: PLC0415 - slow, and optional
        except ImportError as error:
            raise TrainingError(
                "writing for TensorBoard needs it: pip install 'lookalike[tensorboard]'"
            ) from error
        try:
            self._writer = SummaryWriter(folder)
        except OSError as error:
            raise TrainingError(f"cannot write {folder}: {error.strerror}") from error
        self._step = 0

    def __call__(self, event: Event) -> None:
        """Write every tenth step, and each epoch; go on at the step that is reached."""
        match event:
            case TrainingStarted():
                self._step = event.epochs_done * event.steps_per_epoch
            case StepMetrics():
                self._step += 1
                if self._step % STEPS_APART == 0:
                    self._write_step(event)
            case EpochMetrics():
                self._write_epoch(event)

    def close(self) -> None:
        """Write what is left."""
        self._writer.close()

    def _write_step(self, step: StepMetrics) -> None:
        self._write(
            {
                "step/loss": step.loss,
                "step/accuracy": step.correct / step.images,
                "step/gradient_norm": step.gradient_norm,
                "step/learning_rate": step.learning_rate,
            },
            self._step,
        )

    def _write_epoch(self, epoch: EpochMetrics) -> None:
        """Write the epoch, and everything to disk."""
        figures = {
            "epoch/loss": epoch.loss,
            "epoch/accuracy": epoch.accuracy,
            "epoch/seconds": epoch.seconds,
        }
        if epoch.validation_loss is not None and epoch.validation_accuracy is not None:
            figures |= {
                "epoch/validation_loss": epoch.validation_loss,
                "epoch/validation_accuracy": epoch.validation_accuracy,
            }
        self._write(figures, epoch.epoch)
        self._writer.flush()

    def _write(self, figures: dict[str, float], step: int) -> None:
        for name, value in figures.items():
            self._writer.add_scalar(name, value, step)
