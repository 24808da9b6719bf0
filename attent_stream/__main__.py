"""`python -m attent_stream`: the same as the command `attent-stream`."""

import sys

from attent_stream.cli import main

if __name__ == "__main__":
    sys.exit(main())
