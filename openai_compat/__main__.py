"""The command ``openai-compat``, run as ``python -m openai_compat``."""

import sys

from openai_compat.server.cli import main

if __name__ == "__main__":
    sys.exit(main())
