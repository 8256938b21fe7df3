"""Settings to objects: the one place that knows every concrete class."""

from __future__ import annotations

import itertools
import logging
from collections.abc import Iterator, Mapping
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path

from atomid_live.backends import open_network
from atomid_live.backends.engine import find_engine, load_engine
from atomid_live.detect.dog import DogDetector
from atomid_live.errors import UsageError
from atomid_live.guest import default_threads
from atomid_live.pipeline import Pipeline
from atomid_live.protocols import Detector, Sink, Source
from atomid_live.session import Session
from atomid_live.session_file import SessionFolder, SessionInfo, find_latest, read_session, reopen
from atomid_live.settings import Origins, Settings, flat_values
from atomid_live.sinks.recorder import Recorder
from atomid_live.sources.files import read_frames
from atomid_live.sources.folder import FolderSource
from atomid_live.sources.ledger import Ledger
from atomid_live.sources.replay import ReplaySource
from atomid_live.sources.stream import StreamSource
from atomid_live.types import Frame, Result

log = logging.getLogger(__name__)

LEDGER = "ledger.sqlite"
WARM_UP_SHAPE = (1024, 1024)


@dataclass(slots=True)
class Run:
    """A session ready to run, with what must be closed after it."""

    session: Session
    source: Source
    path: Path
    recorder: Recorder
    notes: tuple[str, ...]
    closing: ExitStack


@dataclass(slots=True)
class Chain:
    """File to recorded line without a session around it, for `bench`."""

    pipeline: Pipeline
    recorder: Recorder
    settings: Settings

    @property
    def detector_name(self) -> str:
        """Name of the detector in use."""
        return self.pipeline.detector.name

    def warm_up(self, shape: tuple[int, int]) -> None:
        """Compile and allocate."""
        self.pipeline.warm_up(shape)

    def read(self, path: Path, sequence: int) -> Frame:
        """Read the first frame of a file, numbered."""
        from dataclasses import replace

        return replace(next(iter(read_frames(path, self.settings.frame))), sequence=sequence)

    def process(self, frame: Frame) -> Result:
        """Run the pipeline."""
        return self.pipeline.process(frame)

    def record(self, frame: Frame, result: Result) -> None:
        """Write table and line as a session does."""
        self.recorder.write(frame, result)

    def settle(self) -> None:
        """Let the picture of the last frame be finished, as it is when frames come at a live pace."""
        self.recorder.wait_for_pictures()


class Prepared:
    """Settings with their origins, and what can be built from them."""

    def __init__(self, settings: Settings, origins: Origins) -> None:
        self.settings, self.origins = settings, origins

    @property
    def threads(self) -> int:
        """Processor threads in use."""
        return self.settings.threads or default_threads()

    def detector(self) -> Detector:
        """Return the detector that `--model` names.

        Raises
        ------
        UsageError
            No such model.
        ModelError
            The model does not fit its card.
        DeviceAbsentError
            The back end asked for is not here.
        """
        chosen, frame = self.settings.detect, self.settings.frame
        if chosen.model == "dog":
            return DogDetector(chosen, frame)
        engine_folder = find_engine(None if chosen.model == "auto" else chosen.model)
        if engine_folder is None:
            return DogDetector(chosen, frame)
        from atomid_live.backends.device_open import detector_for
        from atomid_live.detect.unet import UnetDetector

        engine = load_engine(engine_folder)

        def on_processor() -> Detector:
            backend = "auto" if chosen.backend == "tensorrt" else chosen.backend
            return UnetDetector(open_network(engine, backend, self.threads), engine, chosen, frame)

        return detector_for(engine, chosen.backend, on_processor, chosen, frame)

    def _model_card(self, detector: Detector) -> Mapping[str, object]:
        card = getattr(detector, "card", None)
        return {"name": detector.name, **(card if isinstance(card, dict) else {})}

    def _info(self, source: str, detector: Detector) -> SessionInfo:
        named = self.settings.frame.calibration or ""
        return SessionInfo(source, flat_values(self.settings), self.origins, self._model_card(detector), named)

    def _pipeline(self) -> Pipeline:
        pipeline = Pipeline(self.detector(), self.settings)
        pipeline.warm_up(WARM_UP_SHAPE)
        return pipeline

    def _courtesies(self, session: Path, closing: ExitStack, *, lossless: bool) -> list[Sink]:
        output, sinks = self.settings.output, list[Sink]()
        if output.publish is not None:
            from atomid_live.sinks.publisher import Publisher

            publisher = Publisher(output.publish, output.advise)
            closing.callback(publisher.close)
            sinks.append(publisher)
        elif output.advise:
            raise UsageError("--advise needs an address to publish on; add e.g. --publish tcp://127.0.0.1:5556")
        if output.average is not None:
            from atomid_live.sinks.average import AverageSink

            average = AverageSink(session, output.average, lossless=lossless)
            closing.callback(average.close)
            sinks.append(average)
        return sinks

    def _recorder(self, folder: SessionFolder, *, lossless: bool) -> Recorder:
        output = self.settings.output
        recorder = Recorder(folder, annotate=output.annotate, min_free_bytes=output.min_free_bytes, lossless=lossless)
        recorder.warm_up()
        return recorder

    def _run(
        self, source: Source, pipeline: Pipeline, folder: SessionFolder, notes: tuple[str, ...], closing: ExitStack
    ) -> Run:
        live = isinstance(source, StreamSource)
        recorder = self._recorder(folder, lossless=not live)
        closing.callback(recorder.close)
        closing.callback(source.close)
        numbers = itertools.count(folder.next_sequence)
        session = Session(
            source, pipeline, recorder, folder.path, numbers, self._courtesies(folder.path, closing, lossless=not live)
        )
        return Run(session, source, folder.path, recorder, notes, closing)

    def watch(self, watched: Path) -> Run:
        """Build a session over a folder; an interrupted one is gone on with, an ended one hands its ledger on."""
        if not watched.is_dir():
            raise UsageError(f"{watched} is not a folder; name the folder that the acquisition software saves into")
        pipeline, out, closing = self._pipeline(), self.settings.output.out, ExitStack()
        last = find_latest(out, str(watched))
        info, notes = self._info(str(watched), pipeline.detector), list[str]()
        if last is not None and not last.ended and not last.running:
            folder = reopen(last.path)
            notes.append(f"going on with session {last.path.name}, which was cut off")
        else:
            folder = SessionFolder.create(out, info)
        closing.callback(folder.close)
        ledger = Ledger(folder.path / LEDGER)
        closing.callback(ledger.close)
        if last is not None:
            if last.path != folder.path and (last.path / LEDGER).is_file():
                ledger.import_from(last.path / LEDGER)
                notes.append(f"frames taken by session {last.path.name} are not taken again; `replay` would")
            ledger.reconcile(read_session(last.path).frames)
        source = FolderSource(watched, self.settings.source, self.settings.frame, ledger, leave_out=(out,))
        return self._run(source, pipeline, folder, tuple(notes), closing)

    def listen(self, address: str, insecure: bool) -> Run:
        """Build a session over a live stream."""
        pipeline, closing = self._pipeline(), ExitStack()
        source = StreamSource(address, self.settings.source, self.settings.frame, insecure)
        folder = SessionFolder.create(self.settings.output.out, self._info(address, pipeline.detector))
        closing.callback(folder.close)
        return self._run(source, pipeline, folder, (), closing)

    def replay(self, paths: list[Path], pace_s: float | None) -> Run:
        """Build a session over saved frames."""
        pipeline, closing = self._pipeline(), ExitStack()
        source = ReplaySource(paths, self.settings.source, self.settings.frame, pace_s)
        info = self._info(", ".join(str(path) for path in paths), pipeline.detector)
        folder = SessionFolder.create(self.settings.output.out, info)
        closing.callback(folder.close)
        return self._run(source, pipeline, folder, (), closing)

    @contextmanager
    def offline_chain(self, out: Path) -> Iterator[Chain]:
        """Build pipeline and recorder without source and displays, recording into `out`."""
        pipeline = Pipeline(self.detector(), self.settings)
        with ExitStack() as closing:
            folder = SessionFolder.create(out, self._info("bench", pipeline.detector))
            closing.callback(folder.close)
            recorder = self._recorder(folder, lossless=False)
            closing.callback(recorder.close)
            yield Chain(pipeline, recorder, self.settings)
