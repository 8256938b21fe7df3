"""The kinds of error a caller can act on. Every message says what arrived, the rule, and the next step."""


class AtomidError(Exception):
    """Base of every error raised on purpose; `exit_code` is what the command line returns (CONTRACT)."""

    exit_code = 1


class UsageError(AtomidError):
    """The caller asked for something that does not exist or cannot be combined."""

    exit_code = 2


class SettingsError(UsageError):
    """A settings file or option holds an unknown key or a value out of range."""


class InputGoneError(AtomidError):
    """The watched folder, address or file went away and did not come back."""

    exit_code = 3


class DeviceAbsentError(AtomidError):
    """A device or back end that was asked for by name is not on this machine."""

    exit_code = 4


class FileNotReadyError(AtomidError):
    """The file is not whole yet (locked, growing, truncated): try again later."""


class UnreadableFileError(AtomidError):
    """The file is whole but cannot be read as a frame, and waiting will not help."""


class NotAFrameError(AtomidError):
    """The file is whole and readable but holds no image of the specimen (a spectrum, an FFT, a DPC map)."""


class RecordingError(AtomidError):
    """A result could not be written to the session folder: recording is a duty, so this is loud."""


class WireError(AtomidError):
    """A stream message broke a rule of the protocol."""


class ModelError(AtomidError):
    """A model file does not fit its card, or its card does not fit this program."""


class CalibrationError(UsageError):
    """A calibration profile is missing, unreadable, or for another scan than the frame's."""
