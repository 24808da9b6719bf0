"""Run the command `attent-stream` as `python -m attent_stream`."""

import sys

from attent_stream.cli import main

if __name__ == "__main__":
    sys.exit(main())
