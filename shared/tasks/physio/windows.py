"""Recordings cut into windows of two seconds, each starting one second after the last."""

from collections.abc import Iterable

import numpy as np
from numpy.lib.stride_tricks import sliding_window_view

from shared.tasks.physio.carrier import Recording
from shared.tasks.task import Examples, Inputs

WINDOW_SAMPLES = 100
STEP_SAMPLES = 50
CHANNELS = ("acc_x", "acc_y", "acc_z", "gyro_x", "gyro_y", "gyro_z")


def windows(recordings: Iterable[Recording]) -> Examples:
    """The windows of all recordings, in order; a window's unit is its recording, because neighbours overlap."""
    parts = [(recording, cut(recording)) for recording in recordings]
    if not parts:
        return Examples(np.empty((0, 6, 100), np.float32), np.empty(0, np.int64), np.empty(0, np.int64))
    counts = [len(part) for _, part in parts]
    return Examples(
        inputs=np.concatenate([part for _, part in parts]),
        labels=np.repeat(np.array([recording.label for recording, _ in parts], np.int64), counts),
        units=np.repeat(np.array([recording.number for recording, _ in parts], np.int64), counts),
    )


def cut(recording: Recording) -> Inputs:
    """The windows of one recording, `(n, 6, 100)`; what is left at its end is dropped."""
    views = sliding_window_view(recording.samples, WINDOW_SAMPLES, axis=0)[::STEP_SAMPLES]
    return np.ascontiguousarray(views, np.float32)
