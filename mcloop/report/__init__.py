"""What was seen, in words and in pictures: the reports of a run, its figures, and its numbers over seeds."""
