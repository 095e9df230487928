"""The simulations that hold every law against the library's own loops."""
