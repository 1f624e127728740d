"""What a run leaves behind: stage records, item scores, and the results file."""
