"""What all tests share."""

import os

os.environ.setdefault("TOKENIZERS_PARALLELISM", "false")
