"""What can be done in a trial: one file per kind of stage."""

NOT_PLUGINS = ("adapted", "switching", "memory", "together")
