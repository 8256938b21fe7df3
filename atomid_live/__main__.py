"""`python -m atomid_live`."""

from atomid_live.cli import main

main()
