"""Tasks: one file each, the file name is the registered name. The modules named below are machinery, not tasks."""

NOT_PLUGINS = ("assemble", "chat", "encode", "encoded", "flaws", "hub_files", "local", "near_duplicates", "pieces", "published",
               "restored", "space_mark", "splits", "touching", "user_rows")
