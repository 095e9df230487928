"""Real data: whatever it comes from, it becomes arrays with one leading axis."""
