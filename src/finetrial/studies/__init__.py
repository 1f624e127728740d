"""The built-in studies: one file each. `arms` is what they share."""

NOT_PLUGINS = ("arms",)
