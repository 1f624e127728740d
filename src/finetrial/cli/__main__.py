"""`python -m finetrial.cli`, where the `finetrial` script is not installed."""

import sys

from finetrial.cli import main

if __name__ == "__main__":
    sys.exit(main())
