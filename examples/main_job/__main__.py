"""``python -m examples.main_job``, started by `scripts/run`. Exit codes: 0 clean, 1 not clean or void, 2 no verdict."""

from __future__ import annotations

import signal
import sys
import traceback
from contextlib import ExitStack

import psycopg
from confluent_kafka import KafkaException

from examples.inventory.load import LoadError
from examples.main_job import report
from examples.main_job.companions import CompanionError
from examples.main_job.job import MainJob, Outcome
from examples.main_job.observer import Observer
from examples.main_job.options import Options, parse_options
from examples.main_job.pipeline import Pipeline, PipelineError
from examples.main_job.progress import tell
from examples.main_job.verdict import NoComparisonError
from rowcast.errors import RowcastError

_NO_VERDICT = (
    RowcastError,
    PipelineError,
    CompanionError,
    LoadError,
    NoComparisonError,
    psycopg.Error,
    KafkaException,
    OSError,
)


def main(argv: list[str] | None = None) -> int:
    """Run the job and return its exit code."""
    for number in (signal.SIGTERM, signal.SIGHUP):
        signal.signal(number, _interrupt)
    pipeline: Pipeline | None = None
    try:
        options = parse_options(argv)
        if options.json is not None:
            options.json.unlink(missing_ok=True)  # no file where there is no verdict
        pipeline = Pipeline(options)
        return _stop(pipeline) if options.stop else _run(options, pipeline)
    except _NO_VERDICT as error:
        tell(f"no verdict: {error}")
        if pipeline is not None and options.down:
            pipeline.stop(all_of_it=True)
        return 2
    except Exception:  # noqa: BLE001 (a crash must not end with the code that says "not clean")
        traceback.print_exc()
        return 2
    except KeyboardInterrupt:
        tell("interrupted: what this run started is stopped")
        if pipeline is not None:
            pipeline.stop(all_of_it=options.down)
        return 130


def _run(options: Options, pipeline: Pipeline) -> int:
    outcome = _drive(options, pipeline)
    content = report.figures(options, pipeline, outcome)
    if options.json is not None:
        report.write(options.json, content)
    print(report.table(content, outcome))
    if options.down:
        pipeline.stop(all_of_it=True)
    else:
        print(report.what_next(options))
    return report.exit_code(outcome)


def _drive(options: Options, pipeline: Pipeline) -> Outcome:
    pipeline.start_servers()
    with ExitStack() as cleanup:
        observer = Observer(pipeline.orders_url)
        cleanup.callback(observer.stop)
        observer.start()
        pipeline.load_catalogue()
        pipeline.apply_source()
        pipeline.place_orders()
        pipeline.start_companions()
        return MainJob(options, pipeline, observer).run()


def _stop(pipeline: Pipeline) -> int:
    pipeline.stop(all_of_it=True)
    return 0


def _interrupt(number: int, _: object) -> None:
    raise KeyboardInterrupt(signal.Signals(number).name)


if __name__ == "__main__":
    sys.exit(main())
