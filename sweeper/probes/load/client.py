"""The streams of one client process: sockets, one selector, httptools. No event loop framework.

Every ready socket of a wake-up is read and stamped before any byte is parsed, so that the 256th stream of a burst is
not stamped late by the parsing of the 255 before it. Requests are written a few at a time between reads likewise.
"""

from __future__ import annotations

import contextlib
import selectors
import socket
import ssl
from array import array
from collections import deque
from collections.abc import Callable
from dataclasses import dataclass
from time import monotonic, process_time
from typing import Any

from httptools import HttpParserError, HttpResponseParser

from sweeper.probes.load.events import Answer, body_error
from sweeper.probes.load.feeder import Feeder, Plan

READ = 65536
SENDS_PER_TURN = 8


@dataclass(slots=True, kw_only=True)
class Target:
    """Where requests go. `headers` are complete header lines without Host, length and type."""

    host: str
    port: int
    path: str
    tls: bool = False
    headers: tuple[str, ...] = ()
    connect_s: float = 10.0
    first_s: float = 600.0
    """Longest wait for the first byte of an answer."""
    stall_s: float = 60.0
    """Longest silence inside a stream."""

    def head(self, length: int) -> bytes:
        lines = [f"POST {self.path} HTTP/1.1", f"Host: {self.host}:{self.port}", "Content-Type: application/json"]
        lines += ["Accept: text/event-stream", f"Content-Length: {length}", *self.headers, "", ""]
        return "\r\n".join(lines).encode("latin-1")


class Connection:
    """One keep-alive connection and the request it carries."""

    def __init__(self, target: Target, addresses: list[Any]) -> None:
        self.target, self.addresses = target, addresses
        self.sock: socket.socket | None = None
        self.answer: Answer | None = None
        self.request = b""
        self.outbox: memoryview | None = None
        self.now = 0.0
        self.last_s = 0.0
        self.heard = self.reused = self.complete = False
        self.status = 200
        self.plain = bytearray()
        self.parser: HttpResponseParser

    def connect(self) -> None:
        """Starts a TCP connection; TLS is shaken here and blocks. Raises OSError."""
        family, kind, proto, _, address = self.addresses[0]
        sock = socket.socket(family, kind, proto)
        sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        if self.target.tls:
            sock.settimeout(self.target.connect_s)
            sock.connect(address)
            sock = ssl.create_default_context().wrap_socket(sock, server_hostname=self.target.host)
        sock.setblocking(False)
        if not self.target.tls:
            sock.connect_ex(address)
        self.sock, self.reused = sock, False
        self.parser = HttpResponseParser(self)

    def close(self) -> None:
        if self.sock is not None:
            self.sock.close()
            self.sock = None

    def read(self) -> bytes:
        """All bytes that are there. Raises BlockingIOError when there are none, OSError when the connection broke."""
        assert self.sock is not None
        try:
            data = self.sock.recv(READ)
            if self.target.tls:
                while self.sock.pending():  # type: ignore[attr-defined]
                    data += self.sock.recv(READ)
        except ssl.SSLWantReadError as error:
            raise BlockingIOError from error
        return data

    def on_message_begin(self) -> None:
        self.heard = True

    def on_headers_complete(self) -> None:
        self.status = self.parser.get_status_code()

    def on_body(self, body: bytes) -> None:
        answer = self.answer
        if answer is not None and self.status == 200:
            answer.feed(body, self.now)
        else:
            self.plain += body

    def on_message_complete(self) -> None:
        self.complete = True
        answer = self.answer
        if answer is None:
            return
        if self.status != 200:
            answer.error = body_error(self.status, bytes(self.plain))
        else:
            answer.finish_body(self.now)


class Client:
    """Runs one plan at a time over its own connections, which stay open between plans."""

    def __init__(self, target: Target, say: Callable[[str, float], None] | None = None) -> None:
        """`say("open", s)`: all of the first wave have a token. `say("close", s)`: they became fewer for good."""
        self.target, self.say = target, say
        self.selector = selectors.DefaultSelector()
        self.addresses = socket.getaddrinfo(target.host, target.port, type=socket.SOCK_STREAM)
        self.idle: deque[Connection] = deque()
        self.live: set[Connection] = set()
        self.answers: list[Answer] = []
        self.busy = array("d")
        self.stopping = False
        self.expire_at = 0.0

    def prepare(self, count: int) -> None:
        """Open `count` connections side by side. Raises OSError when the server cannot be reached."""
        fresh: list[Connection] = []
        while len(self.idle) + len(fresh) < count:
            connection = Connection(self.target, self.addresses)
            connection.connect()
            fresh.append(connection)
        deadline = monotonic() + self.target.connect_s
        with selectors.DefaultSelector() as waiting:
            for connection in fresh:
                waiting.register(connection.sock, selectors.EVENT_WRITE, connection)  # type: ignore[arg-type]
            while waiting.get_map():
                ready = waiting.select(max(0.0, deadline - monotonic()))
                if not ready:
                    raise TimeoutError(f"no connection to {self.target.host}:{self.target.port} in time")
                for key, _ in ready:
                    waiting.unregister(key.fileobj)
                    code = key.data.sock.getsockopt(socket.SOL_SOCKET, socket.SO_ERROR)
                    if code:
                        raise ConnectionRefusedError(code, f"{self.target.host}:{self.target.port} refused")
        self.idle.extend(fresh)

    def run(
        self, plan: Plan, control: Callable[[], str | None] | None = None, control_fd: int | None = None
    ) -> dict[str, Any]:
        """Send everything; returns records and the client's own cost. `control` is asked when `control_fd` is ready."""
        self.answers, self.busy, self.stopping = [], array("d"), False
        if control_fd is not None:
            self.selector.register(control_fd, selectors.EVENT_READ, None)
        started, cpu, waited = monotonic(), process_time(), _waited_s()
        feeder = Feeder(plan, started)
        state = "filling"
        try:
            while True:
                for _ in range(SENDS_PER_TURN):
                    index = None if self.stopping else feeder.due(len(self.live), monotonic())
                    if index is None:
                        break
                    self._send(index, plan)
                if not self.live and (self.stopping or feeder.empty()):
                    break
                self._turn(feeder.wait(len(self.live), monotonic(), self.stopping), control)
                state = self._tell(state, plan, feeder)
        finally:
            if control_fd is not None:
                self.selector.unregister(control_fd)
        return {
            "requests": [answer.record() for answer in self.answers],
            "started_s": started,
            "wall_s": monotonic() - started,
            "cpu_s": process_time() - cpu,
            "waited_s": _waited_s() - waited,
            "lag_p99_s": _p99(self.busy),
        }

    def stop(self) -> None:
        """Cut every live stream."""
        self.stopping = True
        for connection in list(self.live):
            assert connection.answer is not None
            connection.answer.cut = True
            self._end(connection, monotonic(), None, keep=False)

    def close(self) -> None:
        for connection in [*self.idle, *self.live]:
            connection.close()
        self.selector.close()

    def _tell(self, state: str, plan: Plan, feeder: Feeder) -> str:
        if self.say is None or state == "closed":
            return state
        if state == "filling" and feeder.first_wave_sent():
            first = self.answers[: plan.concurrency]
            if all(a.stamps or a.ended_s for a in first):
                self.say("open", max((a.stamps[0] for a in first if a.stamps), default=monotonic()))
                return "open"
        if state == "open" and len(self.live) < plan.concurrency and feeder.empty():
            self.say("close", monotonic())
            return "closed"
        return state

    def _send(self, index: int, plan: Plan) -> None:
        body = plan.bodies[index]
        connection = self.idle.popleft() if self.idle else Connection(self.target, self.addresses)
        answer = Answer(index, plan.lengths[index], keep_text=plan.keep_text)
        self.answers.append(answer)
        connection.answer, connection.request = answer, self.target.head(len(body)) + body
        self.live.add(connection)
        try:
            if connection.sock is None:
                connection.connect()
            self._start(connection)
        except OSError as error:
            self._end(connection, monotonic(), f"cannot connect: {error}", keep=False)

    def _start(self, connection: Connection) -> None:
        connection.heard = connection.complete = False
        connection.plain.clear()
        connection.outbox = memoryview(connection.request)
        assert connection.sock is not None
        assert connection.answer is not None
        self.selector.register(connection.sock, selectors.EVENT_READ, connection)
        connection.answer.sent_s = connection.last_s = monotonic()
        self._flush(connection)

    def _flush(self, connection: Connection) -> None:
        assert connection.sock is not None
        assert connection.outbox is not None
        try:
            sent = connection.sock.send(connection.outbox)
        except (BlockingIOError, ssl.SSLWantWriteError):
            sent = 0
        rest = connection.outbox[sent:]
        wanted = selectors.EVENT_READ | selectors.EVENT_WRITE if len(rest) else selectors.EVENT_READ
        if len(rest) or len(connection.outbox) < len(connection.request):
            self.selector.modify(connection.sock, wanted, connection)
        connection.outbox = rest if len(rest) else None

    def _turn(self, timeout: float, control: Callable[[], str | None] | None) -> None:
        ready = self.selector.select(timeout)
        began = monotonic()
        reads: list[tuple[Connection, bytes, float, str | None]] = []
        told = False
        for key, mask in ready:
            connection = key.data
            if connection is None:
                told = True
                continue
            if mask & selectors.EVENT_WRITE and connection.outbox is not None:
                try:
                    self._flush(connection)
                except OSError as error:
                    self._lost(connection, monotonic(), f"cannot send: {error}")
                    continue
            if mask & selectors.EVENT_READ:
                try:
                    reads.append((connection, connection.read(), monotonic(), None))
                except BlockingIOError:
                    continue
                except OSError as error:
                    reads.append((connection, b"", monotonic(), f"connection broke: {error.strerror or error}"))
        for connection, data, now, problem in reads:
            self._received(connection, data, now, problem)
        if began >= self.expire_at:
            self.expire_at = began + 0.25
            self._expire(began)
        if ready:
            self.busy.append(monotonic() - began)
        if told and control and control() == "stop":
            self.stop()

    def _received(self, connection: Connection, data: bytes, now: float, problem: str | None) -> None:
        if not data:
            self._lost(connection, now, problem or "server closed the connection mid-stream")
            return
        connection.now = connection.last_s = now
        try:
            connection.parser.feed_data(data)
        except HttpParserError as error:
            self._end(connection, now, f"not HTTP: {error}", keep=False)
            return
        if connection.complete:
            self._end(connection, now, None, keep=bool(connection.parser.should_keep_alive()))

    def _lost(self, connection: Connection, now: float, problem: str) -> None:
        """A keep-alive connection that the server had already closed is opened again, once."""
        if connection.reused and not connection.heard:
            self._forget(connection)
            try:
                connection.connect()
                self._start(connection)
                return
            except OSError as error:
                problem = f"cannot connect: {error}"
        answer = connection.answer
        if answer is not None and (answer.done or answer.finish):
            problem = ""
        elif not connection.heard:
            problem = problem.replace("mid-stream", "before answering")
        self._end(connection, now, problem or None, keep=False)

    def _forget(self, connection: Connection) -> None:
        if connection.sock is not None:
            with contextlib.suppress(KeyError, ValueError):
                self.selector.unregister(connection.sock)
            connection.close()

    def _end(self, connection: Connection, now: float, problem: str | None, *, keep: bool) -> None:
        answer = connection.answer
        assert answer is not None
        answer.ended_s = now
        answer.error = answer.error or problem
        if answer.error is None and not answer.stamps and not answer.cut:
            answer.error = "the answer held no token"
        connection.answer = None
        self.live.discard(connection)
        if keep and connection.sock is not None:
            self.selector.unregister(connection.sock)
            connection.reused = True
            self.idle.append(connection)
        else:
            self._forget(connection)

    def _expire(self, now: float) -> None:
        for connection in list(self.live):
            limit = self.target.stall_s if connection.heard else self.target.first_s
            if now - connection.last_s > limit:
                what = "stalled: nothing for" if connection.heard else "no answer within"
                self._end(connection, now, f"{what} {limit:g} s", keep=False)


def _waited_s() -> float:
    """Seconds this process was ready to run and had no core (Linux; 0 elsewhere)."""
    try:
        with open("/proc/self/schedstat", "rb") as stream:
            return int(stream.read().split()[1]) / 1e9
    except (OSError, IndexError, ValueError):
        return 0.0


def _p99(values: array[float]) -> float:
    ordered = sorted(values)
    return ordered[min(len(ordered) - 1, int(0.99 * len(ordered)))] if ordered else 0.0
