"""Train an experiment: uv run train.py configs/<task>/<name>.py [--run-dir DIR] [--FIELD VALUE …]."""

import sys

from jaxgen.cli import train

if __name__ == "__main__":
    sys.exit(train())
