"""Methods: ways to adapt a base. One file each; the file name is the registered name."""
