"""Install what is needed into .venv, then run atomid-live with the arguments given; without any, the demo.

python scripts/start.py
python scripts/start.py watch FOLDER --out DIR
"""

from __future__ import annotations

import subprocess
import sys

from environment import ROOT, ready


def main() -> int:
    """Return the exit code of atomid-live."""
    python = ready("")
    arguments = sys.argv[1:] or ["demo"]
    child = subprocess.Popen([str(python), "-m", "atomid_live", *arguments])
    while True:
        try:
            return child.wait()
        except KeyboardInterrupt:  # Ctrl-C reached the child too: let it end its session in order
            continue


if __name__ == "__main__":
    print(f"atomid-live from {ROOT}", file=sys.stderr, flush=True)
    sys.exit(main())
