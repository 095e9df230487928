"""Distances between what a loop makes and what is true; they know nothing of loops."""
