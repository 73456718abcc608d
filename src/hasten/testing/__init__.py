"""The fakes that hasten ships, for its own tests and for those of whoever builds on it."""

from hasten.testing.clock import ManualClock
from hasten.testing.fake_arm import FakeArm, FakeLoader
from hasten.testing.fake_engine import FakeEngine
from hasten.testing.fake_transport import FakeTransport
from hasten.testing.replay import Arrival, Ended, Replayed, replay

__all__ = [
    "Arrival",
    "Ended",
    "FakeArm",
    "FakeEngine",
    "FakeLoader",
    "FakeTransport",
    "ManualClock",
    "Replayed",
    "replay",
]
