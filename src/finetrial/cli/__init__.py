"""The command line. `main` turns every way a command can end into a few words and an exit code.

0: done. 1: a check failed, or finetrial itself did (that is a bug, and says so). 2: something the user can mend: a
`UserError`, an unknown option. 130: stopped with Ctrl-C.

Commands are declared in `app.py`; what a command does is imported when it is called, so that `--help` is quick.
"""

from __future__ import annotations

import shlex
import sys
from collections.abc import Sequence

STOPPED = 130  # 128 + SIGINT
BUG = 1


def main(arguments: Sequence[str] | None = None) -> int:
    """Run one command line (`sys.argv` without the program's name unless given); return its exit code."""
    arguments = list(sys.argv[1:] if arguments is None else arguments)
    try:
        from finetrial.cli.app import app

        app(arguments, prog_name="finetrial", obj={"command": shlex.join(["finetrial", *arguments])})
    except SystemExit as end:
        code = end.code if isinstance(end.code, int) else int(end.code is not None)
        return _stopped() if code == STOPPED else code
    except KeyboardInterrupt:
        return _stopped()
    except Exception as error:  # noqa: BLE001 (the last resort: shown, and written to a file)
        return _failed(error, arguments)
    return 0


def _stopped() -> int:
    print("\nstopped; run the same command to resume", file=sys.stderr)
    return STOPPED


def _failed(error: Exception, arguments: Sequence[str]) -> int:
    from finetrial.errors import UserError

    if isinstance(error, UserError):
        print(f"error: {error}", file=sys.stderr)
        return error.exit_code
    if isinstance(error, OSError) and error.filename is not None:  # a full disk, no permission: the user's to mend
        print(f"error: {error.strerror or type(error).__name__}: {error.filename}\n"
              "  check that the path exists, that you may write there, and that the disk is not full", file=sys.stderr)
        return UserError.exit_code
    return _bug(error, debug="debug" in arguments)


def _bug(error: Exception, *, debug: bool) -> int:
    """A failure of finetrial itself: one line, and a file with the traceback; with `debug` on the terminal, too."""
    import tempfile
    import traceback

    text = "".join(traceback.format_exception(error))
    if debug:
        print(text, file=sys.stderr)
    with tempfile.NamedTemporaryFile("w", prefix="finetrial-", suffix=".log", delete=False, encoding="utf-8") as log:
        log.write(text)
    print(f"error: finetrial failed: {type(error).__name__}: {error}\n"
          f"  this is a bug; its traceback is in {log.name}", file=sys.stderr)
    return BUG
