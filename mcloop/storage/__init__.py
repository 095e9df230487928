"""A run's folder on disk: manifest, checkpoints, finished chunks and partial draws, each checked when it is read."""
