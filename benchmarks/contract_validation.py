"""
What validation of an event value costs, against reading the same bytes with `orjson.loads`.

``python -m benchmarks.contract_validation`` prints one JSON object: for each accepted example of the project's
contracts, encoded as a worker encodes it, microseconds and ratio; then the median over all of them.
"""

from __future__ import annotations

import argparse
import json
import time
from collections.abc import Callable
from pathlib import Path
from statistics import median
from typing import Any

import orjson

from rowcast.contracts.contract import contract_paths, load_contract
from rowcast.contracts.validation import ValueValidator

_CALLS = 200


def measure(schemas: Path, rounds: int) -> dict[str, Any]:
    """Microseconds of reading, of checking, and of everything that `read` does, for each example; medians of ratios."""
    events = [each for path, _match in contract_paths(schemas) for each in _examples(path, rounds)]
    return {
        "events": events,
        "check_to_loads": round(median(each["check_to_loads"] for each in events), 3),
        "read_to_loads": round(median(each["read_to_loads"] for each in events), 3),
    }


def _examples(path: Path, rounds: int) -> list[dict[str, Any]]:
    contract = load_contract(path)
    validator = ValueValidator(contract.value_schema())
    return [_cost(validator, example, rounds) for example in contract.examples("accepted")]


def _cost(validator: ValueValidator, example: Path, rounds: int) -> dict[str, Any]:
    value = json.loads(example.read_text(encoding="utf-8"))
    raw = validator.encode(value)
    # In turns, so that a busy machine is unfair to none of them; the quickest round is the least disturbed one.
    times: dict[str, list[float]] = {"loads": [], "check": [], "read": []}
    for _round in range(rounds):
        times["loads"].append(_us(orjson.loads, raw))
        times["check"].append(_us(validator.check, value))
        times["read"].append(_us(validator.read, raw))
    loads, check, read = (min(each) for each in times.values())
    costs = {"loads_us": round(loads, 3), "check_us": round(check, 3), "read_us": round(read, 3)}
    ratios = {"check_to_loads": round(check / loads, 3), "read_to_loads": round(read / loads, 3)}
    return {"example": f"{example.parents[3].name}/{example.name}", "bytes": len(raw), **costs, **ratios}


def _us(call: Callable[[Any], Any], argument: Any) -> float:
    start = time.perf_counter()
    for _call in range(_CALLS):
        call(argument)
    return (time.perf_counter() - start) / _CALLS * 1e6


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description="Time the validation of example events against reading them.")
    parser.add_argument("--schemas", type=Path, default=Path("schemas"), help="folder of contracts")
    parser.add_argument("--rounds", type=int, default=80, help="rounds for each example")
    print(json.dumps(measure(**vars(parser.parse_args()))))
