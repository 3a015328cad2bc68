"""An observer that writes what TensorBoard shows: ``tensorboard --logdir FOLDER``."""

from pathlib import Path
from typing import Final

from training.errors import TrainingError
from training.fit.train_step import StepMetrics
from training.fit.trainer import EpochMetrics

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

    def started(self, *, epochs: int, epochs_done: int, steps_per_epoch: int) -> None:
        """Go on at the step that is reached."""
        self._step = epochs_done * steps_per_epoch

    def step(self, report: StepMetrics) -> None:
        """Write every tenth step."""
        self._step += 1
        if self._step % STEPS_APART == 0:
            self._write(
                {
                    "step/loss": report.loss,
                    "step/accuracy": report.correct / report.images,
                    "step/gradient_norm": report.gradient_norm,
                    "step/learning_rate": report.learning_rate,
                },
                self._step,
            )

    def epoch(self, report: EpochMetrics) -> None:
        """Write the epoch, and everything to disk."""
        figures = {
            "epoch/loss": report.loss,
            "epoch/accuracy": report.accuracy,
            "epoch/seconds": report.seconds,
        }
        if report.validation_loss is not None and report.validation_accuracy is not None:
            figures |= {
                "epoch/validation_loss": report.validation_loss,
                "epoch/validation_accuracy": report.validation_accuracy,
            }
        self._write(figures, report.epoch)
        self._writer.flush()

    def close(self) -> None:
        """Write what is left."""
        self._writer.close()

    def _write(self, figures: dict[str, float], step: int) -> None:
        for name, value in figures.items():
            self._writer.add_scalar(name, value, step)
