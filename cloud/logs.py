"""Structured logs of the coordinator and its workers: events with keys on standard error, ours and our libraries'."""

import logging
import sys

import structlog


def configure_logs(*, level: str, style: str) -> None:
    """Sends every log line of this process to standard error.

    Args:
        level: Least important level that is written: `debug`, `info`, `warning` or `error`.
        style: `json`, one object a line, or `text` for people.
    """
    shared: list[structlog.typing.Processor] = [
        structlog.contextvars.merge_contextvars,
        structlog.stdlib.add_log_level,
        structlog.processors.TimeStamper(fmt="iso", utc=True),
    ]
    is_json = style == "json"
    renderer: structlog.typing.Processor
    renderer = structlog.processors.JSONRenderer() if is_json else structlog.dev.ConsoleRenderer(colors=False)
    last = [structlog.processors.format_exc_info, renderer] if is_json else [renderer]
    number = logging.getLevelNamesMapping()[level.upper()]
    structlog.configure(
        processors=[*shared, *last],
        wrapper_class=structlog.make_filtering_bound_logger(number),
        logger_factory=structlog.PrintLoggerFactory(sys.stderr),
    )
    handler = logging.StreamHandler(sys.stderr)
    strip = structlog.stdlib.ProcessorFormatter.remove_processors_meta
    handler.setFormatter(structlog.stdlib.ProcessorFormatter(foreign_pre_chain=shared, processors=[strip, *last]))
    logging.basicConfig(level=max(number, logging.WARNING), handlers=[handler], force=True)
