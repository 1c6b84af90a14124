"""The events of a slide, recorded."""

from wsi_denoise.processing.events import NoEvents, Progress
from wsi_denoise.processing.values import SlidePlan


class RecordedEvents(NoEvents):
    """Keep every event. A test that reacts to one overrides its method."""

    def __init__(self) -> None:
        self.said: list[str] = []
        self.plans: list[SlidePlan] = []
        self.progress: list[Progress] = []
        self.tails = 0

    def waiting(self, text: str) -> None:
        self.said.append(text)

    def planned(self, plan: SlidePlan) -> None:
        self.plans.append(plan)

    def progressed(self, progress: Progress) -> None:
        self.progress.append(progress)

    def submitted(self) -> None:
        self.tails += 1
