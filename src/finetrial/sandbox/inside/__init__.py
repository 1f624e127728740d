"""What runs on the other side: a fresh interpreter that gives up its rights, one layer after another, and then becomes
the untrusted program. Standard library only, and nothing else of finetrial: `launch.py` is started by its path.

`typing` and `collections.abc` would double the time to start: type checkers see them (`TYPE_CHECKING`), nobody else.
Imports are relative: started by its path, this package does not know that it is part of finetrial.
"""
