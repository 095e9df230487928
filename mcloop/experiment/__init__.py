"""What a config file declares, and how it is run into a folder."""

from mcloop.experiment.arguments import chosen, once
from mcloop.experiment.config import Experiment, Size

__all__ = ["Experiment", "Size", "chosen", "once"]
