"""Generators that users bring: any object that fits and draws, as a model of a loop."""
