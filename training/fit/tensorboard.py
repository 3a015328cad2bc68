"""A progress callback that writes what TensorBoard shows: ``tensorboard --logdir FOLDER``."""

from dataclasses import asdict
from pathlib import Path
from typing import Final

from training.errors import TrainingError
from training.progress import EpochMetrics, Event, StepMetrics, TrainingStarted

STEPS_APART: Final = 10  # steps between two points of a curve
SHOWN: Final = {
    "step": ("loss", "accuracy", "gradient_norm", "learning_rate"),
    "epoch": ("loss", "accuracy", "seconds", "validation_loss", "validation_accuracy"),
}


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
                    figures = {**asdict(event), "accuracy": event.correct / event.images}
                    self._write("step", figures, self._step)
            case EpochMetrics():
                self._write("epoch", asdict(event), event.epoch)
                self._writer.flush()

    def close(self) -> None:
        """Write what is left."""
        self._writer.close()

    def _write(self, of: str, figures: dict[str, float | None], at: int) -> None:
        for name in SHOWN[of]:
            value = figures[name]
            if value is not None:
                self._writer.add_scalar(f"{of}/{name}", value, at)
