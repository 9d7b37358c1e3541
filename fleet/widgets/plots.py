"""Plots with a hand on their colours: the one place that touches plotext."""

from collections.abc import Sequence
from dataclasses import dataclass

from textual.color import Color
from textual_plotext import PlotextPlot

from fleet.palette import BACKGROUND, MUTED

DOTS_MAX = 16
"""A curve with more points is drawn without a dot for each."""
Points = Sequence[tuple[float, float]]


@dataclass(frozen=True)
class Curve:
    """Points joined by a line of one colour; one that `is_level` is a line across at the first point's height."""

    points: Points
    colour: str
    label: str = ""
    is_level: bool = False


class LinePlot(PlotextPlot):
    """Curves over a common x axis."""

    def __init__(self, *, id: str) -> None:  # Textual's own name
        super().__init__(id=id)
        self._shown: tuple[Curve, ...] = ()

    def show(self, curves: Sequence[Curve], *, ticks: Sequence[tuple[float, str]], y_low: float | None = None) -> None:
        """Draws the curves; `ticks` label places on the x axis, `y_low` is the least y shown."""
        drawn = tuple(curve for curve in curves if curve.points)
        if drawn == self._shown:
            return
        self._shown = drawn
        self.plt.clear_data()
        self.plt.clear_color()
        self._colour_axes()
        for curve in drawn:
            self._draw(curve)
        self.plt.xticks([place for place, _ in ticks], [label for _, label in ticks])
        self._scale(drawn, y_low=y_low)
        self.refresh()

    def _colour_axes(self) -> None:
        self.plt.xaxes(True, False)
        self.plt.yaxes(True, False)
        self.plt.canvas_color(_rgb(BACKGROUND))
        self.plt.axes_color(_rgb(BACKGROUND))
        self.plt.ticks_color(_rgb(MUTED))

    def _draw(self, curve: Curve) -> None:
        if curve.is_level:
            self.plt.hline(curve.points[0][1], _rgb(curve.colour))
            return
        xs, ys = [x for x, _ in curve.points], [y for _, y in curve.points]
        self.plt.plot(xs, ys, marker="braille", color=_rgb(curve.colour), label=curve.label or None)
        if len(xs) <= DOTS_MAX:
            self.plt.scatter(xs, ys, marker="•", color=_rgb(curve.colour))

    def _scale(self, curves: Sequence[Curve], *, y_low: float | None) -> None:
        ys = [y for curve in curves for _, y in curve.points]
        if not ys:
            return
        low, high = min(ys), max(ys)
        margin = max((high - low) * 0.15, abs(high) * 0.02, 1e-6)
        self.plt.ylim(y_low if y_low is not None else low - margin, high + margin)


def _rgb(colour: str) -> tuple[int, int, int]:
    return Color.parse(colour).rgb
