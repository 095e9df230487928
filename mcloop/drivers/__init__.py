"""How loops are run: one as a scan, grids of them over devices, networks with a checkpoint for every generation."""
