"""The one error that a user should ever read."""


class InputError(ValueError):
    """What the user gave cannot be used; the message is one sentence: the field, the value and what is allowed."""
