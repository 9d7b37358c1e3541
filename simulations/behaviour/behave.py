"""From settings to a behaviour: models, or a recorded fleet."""

from simulations.behaviour.course import Behaviour, ModelledBehaviour
from simulations.behaviour.settings import BehaviourSettings
from simulations.behaviour.trace_file import read_trace
from simulations.behaviour.traced import TracedBehaviour


def behave(settings: BehaviourSettings, *, seed: int) -> Behaviour:
    """How clients behave. Raises TraceError where the file is not a trace."""
    if settings.trace is None:
        return ModelledBehaviour(settings, seed=seed)
    return TracedBehaviour(read_trace(settings.trace), waits=settings.interrupted == "waits", seed=seed)
