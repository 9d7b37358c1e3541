"""The colours, once: commands and terminal app mean the same by the same colour."""

from fleet.views.table import Tone

BACKGROUND = "#0d1117"
SURFACE = "#111823"
PANEL = "#1b2534"
LINE = "#2b3a50"
TEXT = "#c9d4e3"
BRIGHT = "#eef4fb"
MUTED = "#6f8099"
ACCENT = "#5fd3c4"
BLUE = "#7aa7f7"
GREEN = "#8fd18a"
AMBER = "#e6b566"
RED = "#f2727f"

COLOURS = {
    Tone.PLAIN: TEXT,
    Tone.STRONG: BRIGHT,
    Tone.MUTED: MUTED,
    Tone.ACCENT: ACCENT,
    Tone.GOOD: GREEN,
    Tone.BUSY: BLUE,
    Tone.WARN: AMBER,
    Tone.BAD: RED,
}
