"""Closed-form laws that a self-consuming loop must obey, and the certificates of its stability."""
