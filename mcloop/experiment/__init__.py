"""What a config file declares, and how it is run into a folder."""

from mcloop.experiment.arguments import chosen, once
from mcloop.experiment.config import Accept, Experiment, Size

__all__ = ["Accept", "Experiment", "Size", "chosen", "once"]
