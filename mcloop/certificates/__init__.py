"""Is a loop stable? Its exact rate by derivatives, by two copies run a little apart, and the boundary found by simulation."""
