"""Built plans, kept for this user alone. A plan is native code: only what this program wrote here itself is ever loaded.

Each plan has a manifest with its hash and everything its validity rests on; the file name is a digest of the same.
"""

from __future__ import annotations

import contextlib
import hashlib
import json
import os
import stat
import tempfile
from collections.abc import Iterator
from dataclasses import asdict, dataclass
from pathlib import Path

from platformdirs import user_cache_path

from atomid_live.errors import ModelError

SCHEMA = 1
PLAN, MANIFEST, TIMING, CHOICE, GRAPH = ".plan", ".json", "timing-", "choice", "graph-"


@dataclass(frozen=True, slots=True)
class PlanKey:
    """Everything that must be the same for a plan to be valid.

    Attributes
    ----------
    onnx_sha256 : str
        Of the ONNX file as given to the parser.
    tensorrt, cuda, driver : str
        Versions.
    gpu, capability : str
        Name, and e.g. "9.0".
    system : str
        Operating system and processor.
    recipe : str
        Precision, profiles and options, as one text.
    builder : int
        Version of this program's building code.
    """

    onnx_sha256: str
    tensorrt: str
    gpu: str
    capability: str
    driver: str
    cuda: str
    system: str
    recipe: str
    builder: int

    @property
    def digest(self) -> str:
        """SHA-256 of all of it, in hexadecimal."""
        return hashlib.sha256(json.dumps(asdict(self), sort_keys=True).encode()).hexdigest()

    @property
    def machine(self) -> str:
        """Digest of what timings depend on, for the name of the timing cache."""
        parts = (self.tensorrt, self.gpu, self.capability, self.driver, self.cuda, self.system)
        return hashlib.sha256("|".join(parts).encode()).hexdigest()[:16]


@dataclass(frozen=True, slots=True)
class BuildChoice:
    """What `engine build` was last asked for: precision, and frame sizes (rows, cols), none of them for the usual ones."""

    precision: str = "fp16"
    sides: tuple[tuple[int, int], ...] = ()


def default_folder() -> Path:
    """Folder of this user's plans."""
    return user_cache_path("atomid-live", appauthor=False) / "plans"


class PlanCache:
    """Plans in a folder that only its owner can enter.

    Parameters
    ----------
    folder : Path or None
        Default: this user's cache folder.

    Raises
    ------
    ModelError
        The folder belongs to someone else, or is a link.
    """

    def __init__(self, folder: Path | None = None) -> None:
        self.folder = folder or default_folder()
        self.folder.parent.mkdir(parents=True, exist_ok=True)
        with contextlib.suppress(FileExistsError):
            self.folder.mkdir(mode=0o700)
        self._own()

    def load(self, key: PlanKey) -> tuple[bytes | None, str]:
        """Return the plan, or None and why there is none: never built, built for something else, damaged or foreign."""
        plan, manifest = self._paths(key)
        if not manifest.is_file():
            return None, self._difference(key)
        try:
            self._private(plan)
            self._private(manifest)
            entry = json.loads(manifest.read_text(encoding="utf-8"))
            data = plan.read_bytes()
        except (OSError, ValueError, ModelError) as error:
            return None, f"the stored plan cannot be used ({error}); it is built anew"
        if entry.get("schema") != SCHEMA or entry.get("key") != asdict(key):
            return None, "the stored plan's manifest does not belong to it; it is built anew"
        if entry.get("sha256") != hashlib.sha256(data).hexdigest():
            return None, "the stored plan was changed or damaged since it was built; it is built anew"
        return data, ""

    def store(self, key: PlanKey, plan: bytes) -> Path:
        """Write a plan and its manifest whole, the manifest last."""
        path, manifest = self._paths(key)
        self._write(path, plan)
        entry = {"schema": SCHEMA, "key": asdict(key), "sha256": hashlib.sha256(plan).hexdigest(), "bytes": len(plan)}
        self._write(manifest, json.dumps(entry, indent=1, sort_keys=True).encode())
        return path

    def drop(self, key: PlanKey) -> None:
        """Forget a plan that turned out not to run."""
        for path in reversed(self._paths(key)):
            path.unlink(missing_ok=True)

    def timings(self, key: PlanKey) -> bytes:
        """Measured tactics of earlier builds on this machine; empty when there are none."""
        path = self.folder / f"{TIMING}{key.machine}"
        try:
            self._private(path)
            return path.read_bytes()
        except (OSError, ModelError):
            return b""

    def store_timings(self, key: PlanKey, data: bytes) -> None:
        """Keep measured tactics for the next build."""
        self._write(self.folder / f"{TIMING}{key.machine}", data)

    def choice(self) -> BuildChoice:
        """What sessions are to build plans for, as last asked for."""
        path = self.folder / CHOICE
        try:
            self._private(path)
            read = json.loads(path.read_text(encoding="utf-8"))
            return BuildChoice(str(read["precision"]), tuple((int(rows), int(cols)) for rows, cols in read["sides"]))
        except (OSError, ValueError, TypeError, KeyError, ModelError):
            return BuildChoice()

    def store_choice(self, choice: BuildChoice) -> None:
        """Keep what plans are to be built for from now on."""
        self._write(self.folder / CHOICE, json.dumps(asdict(choice)).encode())

    def graph(self, name: str) -> bytes:
        """An ONNX file that was made here; empty when there is none."""
        path = self.folder / f"{GRAPH}{name}.onnx"
        try:
            self._private(path)
            return path.read_bytes()
        except (OSError, ModelError):
            return b""

    def store_graph(self, name: str, data: bytes) -> None:
        """Keep an ONNX file that took a while to make."""
        self._write(self.folder / f"{GRAPH}{name}.onnx", data)

    def _paths(self, key: PlanKey) -> tuple[Path, Path]:
        return self.folder / f"{key.digest}{PLAN}", self.folder / f"{key.digest}{MANIFEST}"

    def _keys(self) -> Iterator[dict[str, object]]:
        for path in sorted(self.folder.glob(f"*{MANIFEST}")):
            with contextlib.suppress(OSError, ValueError):
                key = json.loads(path.read_text(encoding="utf-8")).get("key")
                if isinstance(key, dict):
                    yield key

    def _difference(self, key: PlanKey) -> str:
        """Say what the nearest stored plan of the same network was built for instead."""
        wanted = asdict(key)
        same = [k for k in self._keys() if k.get("onnx_sha256") == key.onnx_sha256]
        if not same:
            return "no plan of this network was built here yet"
        nearest = min(same, key=lambda k: sum(k.get(name) != value for name, value in wanted.items()))
        parts = [
            f"{name} {nearest.get(name)} instead of {value}" for name, value in wanted.items() if nearest.get(name) != value
        ]
        return f"the stored plan is for {', '.join(parts)}; it is built anew"

    def _own(self) -> None:
        facts = self.folder.lstat()
        if not stat.S_ISDIR(facts.st_mode):
            raise ModelError(f"{self.folder}: a link or file stands where plans are kept; remove it")
        if os.name == "nt":
            return  # the folder lies in the user's profile, whose access list it inherits
        if facts.st_uid != os.getuid():
            raise ModelError(
                f"{self.folder}: belongs to another user; plans are native code and are kept by their owner only; remove it"
            )
        if stat.S_IMODE(facts.st_mode) & 0o077:
            self.folder.chmod(0o700)
            # whoever could write here may have left something
            for kind in (f"*{PLAN}", f"*{MANIFEST}", f"{TIMING}*", f"{GRAPH}*"):
                for path in self.folder.glob(kind):
                    path.unlink(missing_ok=True)

    def _private(self, path: Path) -> None:
        facts = path.lstat()
        if not stat.S_ISREG(facts.st_mode):
            raise ModelError(f"{path.name} is not a plain file")
        if os.name != "nt" and (facts.st_uid != os.getuid() or stat.S_IMODE(facts.st_mode) & 0o022):
            raise ModelError(f"{path.name} can be written by others")

    def _write(self, path: Path, data: bytes) -> None:
        # mkstemp makes the file readable and writable by its owner alone
        number, name = tempfile.mkstemp(dir=self.folder, prefix=".writing-")
        try:
            with os.fdopen(number, "wb") as file:
                file.write(data)
                file.flush()
                os.fsync(file.fileno())
            Path(name).replace(path)
        except BaseException:
            Path(name).unlink(missing_ok=True)
            raise
