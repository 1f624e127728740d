"""Tasks: one file each, the file name is the registered name. The modules named below are machinery, not tasks."""

NOT_PLUGINS = ("assemble", "encode", "encoded", "local", "pieces", "published", "splits")
