"""What can go wrong between a folder of images and a trained, measured model.

TrainingError
├── DataError            the data are missing, damaged, or not what can be learnt from
├── RecipeError          a recipe that does not fit its network, device or data
├── WeightsError         pretrained weights are missing, damaged, or of another network
├── DivergenceError      the loss or a gradient is no longer a finite number
└── CheckpointError      a stopped training cannot be saved or continued, or is in the way
    └── UnfitCheckpointError    its state is damaged, or of other data or another recipe
"""


class TrainingError(Exception):
    """Base of this floor's errors."""


class DataError(TrainingError):
    """The data are missing, damaged, or not what can be learnt from."""


class WeightsError(TrainingError):
    """Pretrained weights are missing, damaged, or of another network."""


class RecipeError(TrainingError):
    """A recipe does not fit its network, device or data."""


class DivergenceError(TrainingError):
    """The loss or a gradient is no longer a finite number."""


class CheckpointError(TrainingError):
    """A stopped training cannot be saved or continued, or is in the way of a new one."""


class UnfitCheckpointError(CheckpointError):
    """The state of a stopped training is damaged, or of other data, another recipe or version."""
