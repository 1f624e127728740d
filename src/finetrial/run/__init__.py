"""Running a plan: the store, the workers, the walk over the stages, the live view, and the trial as a whole."""
