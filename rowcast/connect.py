"""
A client of Kafka Connect's REST interface: what Rowcast asks of it, with time limits.

Connect answers 409 while its workers rebalance: those calls are repeated until the deadline.
"""

from __future__ import annotations

import time
from collections.abc import Mapping
from dataclasses import dataclass
from types import TracebackType
from typing import Any, Self
from urllib.parse import quote, urlsplit

import requests

from rowcast.connect_address import ConnectAddress
from rowcast.errors import ConfigurationError, ConnectUnavailableError
from rowcast.tls import speaks_tls, why_not_trusted

_CONNECT_TIMEOUT_S = 5
_READ_TIMEOUT_S = 60  # validating a configuration opens a connection to the source database
_REBALANCE_TIMEOUT_S = 60
_FAILURE_SETTLED_S = 10
_PAUSE_S = 0.2
_LOGIN_FIX = "connect.user and connect.password in rowcast.toml"
_TLS_FIXES = {
    "address": "connect_url",
    "name": "connect_url: a host that the certificate names",
    "server": "http or https in connect_url, or a valid certificate there",
    "authority": "connect.ssl_cafile: a PEM file with whom to trust",
    "certificate": "connect.ssl_certfile and connect.ssl_keyfile",
    "key": "connect.ssl_keyfile",
    "password": "connect.ssl_keyfile: a key without password",
}


@dataclass(frozen=True, slots=True, kw_only=True)
class ConnectorStatus:
    """
    What Connect says of a connector: *state* of the connector and *task_state* of its one task
    (``RUNNING``, ``FAILED``, ``PAUSED``, ``UNASSIGNED``, None before it exists), with the *trace* of a failure.
    """

    state: str
    task_state: str | None
    trace: str

    @property
    def running(self) -> bool:
        """Whether connector and task say that they run; a connector can say so and be dead."""
        return self.state == "RUNNING" and self.task_state == "RUNNING"

    @property
    def failed(self) -> bool:
        """Whether either has failed; Connect never restarts it by itself."""
        return "FAILED" in {self.state, self.task_state}

    @property
    def remedy(self) -> str:
        """What to do about the *trace*, as far as it tells."""
        if "AuthorizationException" in self.trace:
            return (
                "Kafka refuses Connect a right: let who administers Kafka run what `rowcast sources plan --acl` prints"
            )
        return "mend the cause"


class ConnectClient:
    """
    Kafka Connect at *address*, which gets *answer_s* for each answer; use it as a context manager.

    A name and password in it log in (HTTP basic); `url` and every message are without them.
    """

    def __init__(self, address: ConnectAddress | str, answer_s: float = _READ_TIMEOUT_S) -> None:
        self._address = ConnectAddress.parse(address) if isinstance(address, str) else address
        self.url = self._address.url
        self._timeout_s = (_CONNECT_TIMEOUT_S, answer_s)
        self._session = requests.Session()
        if self._address.user is not None:
            login = (self._address.user, self._address.password)
            self._session.auth = tuple(each.encode() for each in login)  # type: ignore[assignment]  # texts would be Latin-1
        tls = self._address.tls
        self._session.verify = tls.authority or True
        if tls.certificate is not None:
            self._session.cert = (tls.certificate, tls.key or tls.certificate)
        self._session.trust_env = False  # Connect stands beside us; no proxy of the environment is meant for it

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._session.close()

    def configuration(self, name: str) -> dict[str, str] | None:
        """The stored configuration of a connector; None when there is none."""
        found: dict[str, str] | None = self._call("GET", f"/connectors/{quote(name)}/config")
        return found

    def put_configuration(self, name: str, configuration: Mapping[str, str]) -> None:
        """
        Create or change a connector.

        Raises:
            ConfigurationError: Connect refuses the configuration; the message is Connect's.

        """
        self._call("PUT", f"/connectors/{quote(name)}/config", configuration)

    def faults(self, connector_class: str, configuration: Mapping[str, str]) -> dict[str, list[str]]:
        """What Connect and the connector would not accept of a *configuration*, by setting; nothing is changed."""
        plugin = connector_class.rpartition(".")[2]
        body = {"name": "rowcast-validation", **configuration}
        found = self._call("PUT", f"/connector-plugins/{quote(plugin)}/config/validate", body)
        values = [each["value"] for each in (found or {}).get("configs", ())]
        return {str(each["name"]): list(each["errors"]) for each in values if each.get("errors")}

    def plugin_version(self, connector_class: str) -> str | None:
        """The version of a connector that Connect has; None: it has none of that class."""
        plugins: list[dict[str, Any]] | None = self._call("GET", "/connector-plugins")
        if plugins is None:
            raise ConnectUnavailableError(f"Kafka Connect at {self.url} is starting, or is something else")
        return next((str(each.get("version")) for each in plugins if each.get("class") == connector_class), None)

    def status(self, name: str) -> ConnectorStatus | None:
        """What Connect says of a connector; None when there is none, or none is known yet."""
        found = self._call("GET", f"/connectors/{quote(name)}/status")
        if found is None:
            return None
        tasks: list[dict[str, Any]] = found["tasks"]
        traces = [part["trace"] for part in (found["connector"], *tasks) if part.get("trace")]
        return ConnectorStatus(
            state=found["connector"]["state"],
            task_state=tasks[0]["state"] if tasks else None,
            trace="\n".join(traces),
        )

    def restart_failed(self, name: str) -> None:
        """Restart what has failed of a connector."""
        self._call("POST", f"/connectors/{quote(name)}/restart?includeTasks=true&onlyFailed=true")

    def restart(self, name: str) -> None:
        """Restart the connector and its tasks, whatever they say of themselves."""
        self._call("POST", f"/connectors/{quote(name)}/restart?includeTasks=true")

    def delete(self, name: str) -> None:
        """Delete a connector; its offsets stay until ``delete_offsets``."""
        self._call("DELETE", f"/connectors/{quote(name)}")

    def stop(self, name: str) -> None:
        """Stop a connector's tasks and keep its configuration; needed before its offsets can go."""
        self._call("PUT", f"/connectors/{quote(name)}/stop")

    def delete_offsets(self, name: str) -> None:
        """Forget where a stopped connector was: its next start takes a snapshot."""
        self._call("DELETE", f"/connectors/{quote(name)}/offsets")

    def wait_running(self, name: str, timeout_s: float) -> ConnectorStatus:
        """
        Wait until connector and task run.

        A failure counts once it has stood for some seconds: until new tasks start, Connect shows the old ones.

        Raises:
            ConfigurationError: it failed, with the task's trace, or did not run in time.

        """
        deadline = time.monotonic() + timeout_s
        failed_since = None
        while True:
            status = self.status(name)
            if status is not None and status.running:
                return status
            failed_since = (failed_since or time.monotonic()) if status is not None and status.failed else None
            if status is not None and failed_since and time.monotonic() > failed_since + _FAILURE_SETTLED_S:
                raise ConfigurationError(
                    f"failed:\n{status.trace}", where=f"connector {name}", fix=f"{status.remedy}, then apply again"
                )
            if time.monotonic() > deadline:
                shown = "unknown" if status is None else f"{status.state}, task {status.task_state or 'none'}"
                raise ConfigurationError(
                    f"does not run after {timeout_s:.0f} s ({shown})",
                    where=f"connector {name}",
                    fix="see Connect's log",
                )
            time.sleep(_PAUSE_S)

    def wait_stopped(self, name: str, timeout_s: float) -> None:
        """
        Wait until a connector that was told to stop has no task left.

        Raises:
            ConnectUnavailableError: it has not stopped in time.

        """
        deadline = time.monotonic() + timeout_s
        while (status := self.status(name)) is not None and (status.state != "STOPPED" or status.task_state):
            if time.monotonic() > deadline:
                raise ConnectUnavailableError(f"connector {name} has not stopped after {timeout_s:.0f} s")
            time.sleep(_PAUSE_S)

    def _call(self, method: str, path: str, body: Mapping[str, str] | None = None) -> Any:
        deadline = time.monotonic() + _REBALANCE_TIMEOUT_S
        while True:
            try:
                response = self._session.request(method, self.url + path, json=body, timeout=self._timeout_s)
            except requests.RequestException as error:
                raise ConnectUnavailableError(self._reason(error)) from error
            if _rebalancing(response) and time.monotonic() < deadline:
                time.sleep(_PAUSE_S)
                continue
            return self._answer(method, path, response)

    def _answer(self, method: str, path: str, response: requests.Response) -> Any:
        if response.ok:
            return response.json() if response.content else None
        if response.status_code == requests.codes.not_found:
            return None
        try:
            message = str(response.json().get("message", response.text))
        except ValueError:
            message = response.text
        if response.status_code == requests.codes.bad_request:
            raise ConfigurationError(f"Kafka Connect refuses it: {message}", where=path, fix="correct the settings")
        if response.status_code in {requests.codes.unauthorized, requests.codes.forbidden}:
            user = "nobody" if self._address.user is None else repr(self._address.user)
            raise ConnectUnavailableError(f"Kafka Connect at {self.url} does not let {user} in ({_LOGIN_FIX})")
        raise ConnectUnavailableError(f"{method} {self.url}{path}: {response.status_code} {message}")

    def _reason(self, error: requests.RequestException) -> str:
        parts = urlsplit(self.url)
        if parts.scheme == "https":
            fault = why_not_trusted(parts.hostname or "", parts.port or 443, self._address.tls)
            if fault is not None:
                return f"Kafka Connect at {self.url}: {fault.message} ({_TLS_FIXES[fault.about]})"
        elif "BadStatusLine" in str(error) and speaks_tls(parts.hostname or "", parts.port or 80):
            return f"Kafka Connect at {self.url} speaks TLS (connect_url: https)"
        return f"Kafka Connect at {self.url} does not answer: {_cause(error)}"


def _rebalancing(response: requests.Response) -> bool:
    """Whether Connect did nothing because its workers are about to share their connectors out anew."""
    if response.status_code == requests.codes.conflict:
        return True
    # Of some requests it says so with the code of an unexpected error.
    return response.status_code == requests.codes.internal_server_error and "rebalance" in response.text


def _cause(error: BaseException) -> str:
    """What the operating system said, which the client wraps several times."""
    if isinstance(error, requests.Timeout):
        return "no answer in time"
    inner: BaseException | None = error
    while inner is not None:
        if isinstance(inner, OSError) and inner.strerror:
            return inner.strerror.lower()
        wrapped = [getattr(inner, "reason", None), *inner.args, inner.__cause__, inner.__context__]
        inner = next((each for each in wrapped if isinstance(each, BaseException)), None)
    return str(error)
