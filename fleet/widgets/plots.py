"""Plots with a hand on their colours: the one place that touches plotext."""

from collections.abc import Sequence
from dataclasses import dataclass

from textual.color import Color
from textual_plotext import PlotextPlot

from fleet.palette import BACKGROUND, MUTED

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

    def __init__(self, *, id: str, x_label: str = "", y_label: str = "") -> None:  # Textual's own name
        super().__init__(id=id)
        self._x_label, self._y_label = x_label, y_label
        self._shown: tuple[Curve, ...] = ()

    def show(self, curves: Sequence[Curve], *, y_low: float | None = None, x_whole: bool = False) -> None:
        """Draws the curves; `y_low` is the least y shown, and `x_whole` marks each whole x."""
        drawn = tuple(curve for curve in curves if curve.points)
        if drawn == self._shown:
            return
        self._shown = drawn
        self.plt.clear_data()
        self.plt.clear_color()
        self._colour_axes()
        for curve in drawn:
            self._draw(curve)
        self._scale(drawn, y_low=y_low, x_whole=x_whole)
        self.refresh()

    def _colour_axes(self) -> None:
        self.theme = "clear"
        self.plt.canvas_color(_rgb(BACKGROUND))
        self.plt.axes_color(_rgb(BACKGROUND))
        self.plt.ticks_color(_rgb(MUTED))
        self.plt.xlabel(self._x_label)
        self.plt.ylabel(self._y_label)

    def _draw(self, curve: Curve) -> None:
        if curve.is_level:
            self.plt.hline(curve.points[0][1], _rgb(curve.colour))
            return
        xs, ys = [x for x, _ in curve.points], [y for _, y in curve.points]
        self.plt.plot(xs, ys, marker="braille", color=_rgb(curve.colour), label=curve.label or None)
        self.plt.scatter(xs, ys, marker="•", color=_rgb(curve.colour))

    def _scale(self, curves: Sequence[Curve], *, y_low: float | None, x_whole: bool) -> None:
        ys = [y for curve in curves for _, y in curve.points]
        xs = [x for curve in curves for x, _ in curve.points]
        if not ys:
            return
        low, high = min(ys), max(ys)
        margin = max((high - low) * 0.15, abs(high) * 0.02, 1e-6)
        self.plt.ylim(y_low if y_low is not None else low - margin, high + margin)
        if x_whole:
            last = int(max(xs))
            self.plt.xticks(list(range(0, last + 1, max(1, last // 8))))


def _rgb(colour: str) -> tuple[int, int, int]:
    return Color.parse(colour).rgb
