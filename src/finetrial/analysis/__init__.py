"""From item scores to answers: estimates with intervals, verdicts, and the results file. No torch, no files."""
