"""The session folder: its format in one place, written crash-safe and read back (docs/session-format.md)."""

from atomid_live.session_file.about import SessionInfo
from atomid_live.session_file.folder import SessionFolder
from atomid_live.session_file.log import log_handler
from atomid_live.session_file.read import AtomTable, SessionRecord, read_atoms, read_session
from atomid_live.session_file.recover import FoundSession, find_latest, reopen
from atomid_live.session_file.tables import ATOM_COLUMNS, DRIFT_COLUMNS, STRAIN_COLUMNS, atoms_csv
from atomid_live.session_file.track_tables import DAMAGE_COLUMNS, EVENT_COLUMNS, picture_name

__all__ = [
    "ATOM_COLUMNS",
    "DAMAGE_COLUMNS",
    "DRIFT_COLUMNS",
    "EVENT_COLUMNS",
    "STRAIN_COLUMNS",
    "AtomTable",
    "FoundSession",
    "SessionFolder",
    "SessionInfo",
    "SessionRecord",
    "atoms_csv",
    "find_latest",
    "log_handler",
    "picture_name",
    "read_atoms",
    "read_session",
    "reopen",
]
