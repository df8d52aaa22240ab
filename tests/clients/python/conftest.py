"""A private server for the suite, and clients that remember what they were told."""

import asyncio
import base64
import functools
import hashlib
import hmac
import itertools
import json
import os
import re
import subprocess
import tempfile
import threading
import urllib.request
import uuid

import pytest
import pytest_asyncio
import socketio

SECRET = "a secret of the test suite, long enough for HS256"
READY = re.compile(r"^SyncWatch is ready: (http://127\.0\.0\.1:\d+/)$")
SOON = 10
GRACE_MS = 2000


def mint(claims):
    """A JSON Web Token under the secret of the suite."""

    def part(value):
        return base64.urlsafe_b64encode(json.dumps(value).encode()).rstrip(b"=").decode()

    signed = f"{part({'alg': 'HS256', 'typ': 'JWT'})}.{part(claims)}"
    digest = hmac.new(SECRET.encode(), signed.encode(), hashlib.sha256).digest()
    return f"{signed}.{base64.urlsafe_b64encode(digest).rstrip(b'=').decode()}"


class Server:
    """The binary as a process of its own; its data is gone when it ends."""

    def __init__(self):
        self.data = tempfile.TemporaryDirectory(prefix="syncwatch-py-")
        inherited = {name: os.environ[name] for name in ("PATH", "HOME", "TMPDIR", "LLVM_PROFILE_FILE") if name in os.environ}
        self.process = subprocess.Popen(
            [os.environ["SYNCWATCH_BIN"]],
            cwd=self.data.name,
            env=inherited
            | {
                "HOST": "127.0.0.1",
                "PORT": "0",
                "DATA_DIR": self.data.name,
                "JWT_SECRET": SECRET,
                "RECONNECT_GRACE_MS": str(GRACE_MS),
            },
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        )
        self.log = []
        threading.Thread(target=lambda: self.log.extend(self.process.stderr), daemon=True).start()
        watchdog = threading.Timer(30, self.process.kill)
        watchdog.start()
        match = READY.match(self.process.stdout.readline().rstrip("\n"))
        watchdog.cancel()
        assert match, f"no ready line: {self.log}"
        self.url = match[1].rstrip("/")

    def stop(self):
        self.process.terminate()
        try:
            assert self.process.wait(30) == 0, self.log
        finally:
            self.process.kill()
            self.process.wait()
            self.data.cleanup()
        assert not [line for line in self.log if '"ERROR"' in line or "panicked at" in line]

    def create_room(self, **body):
        """A room of a new user; the answer is the room and the token of its owner."""
        token = mint({"userId": str(uuid.uuid4()), "username": "owner"})
        request = urllib.request.Request(
            f"{self.url}/api/rooms",
            data=json.dumps({"name": "a room"} | body).encode(),
            headers={"content-type": "application/json", "authorization": f"Bearer {token}"},
        )
        with urllib.request.urlopen(request, timeout=SOON) as answer:
            assert answer.status == 201
            return json.load(answer)["data"], token


class Client:
    """One connection to `/sync`."""

    def __init__(self, server, transports, **options):
        self.server = server
        self.transports = transports
        self.events = []
        self.arrival = asyncio.Condition()
        self.io = socketio.AsyncClient(reconnection=options.pop("reconnection", False), **options)
        self.io.on("*", self._receive, namespace="/sync")
        for event in ("connect", "disconnect"):
            self.io.on(event, functools.partial(self._receive, event), namespace="/sync")

    async def _receive(self, event, payload=None):
        async with self.arrival:
            self.events.append((event, payload))
            self.arrival.notify_all()

    async def connect(self, token=None):
        auth = {} if token is None else {"token": token}
        await self.io.connect(self.server.url, auth=auth, transports=self.transports, namespaces=["/sync"], wait_timeout=SOON)
        return self

    async def ask(self, event, payload=None):
        return await self.io.call(event, payload, namespace="/sync", timeout=SOON)

    async def next(self, event):
        """Takes the next `event`; others stay for later."""

        def place():
            return next((at for at, (name, _) in enumerate(self.events) if name == event), None)

        async with self.arrival:
            try:
                await asyncio.wait_for(self.arrival.wait_for(lambda: place() is not None), SOON)
            except TimeoutError:
                pytest.fail(f"no {event} within {SOON} s; there was {self.events}")
            return self.events.pop(place())[1]

    async def join(self, room, **payload):
        answer = await self.ask("room:join", {"roomCode": room["code"]} | payload)
        assert answer["ok"] is True, answer
        state = await self.next("room:state")
        assert answer == {"ok": True} | state
        return state

    async def close(self):
        await self.io.disconnect()


@pytest.fixture(scope="session")
def server():
    server = Server()
    yield server
    server.stop()


@pytest.fixture(params=[["websocket"], ["polling"], ["polling", "websocket"]], ids=["websocket", "polling", "upgrade"])
def transports(request):
    return request.param


@pytest_asyncio.fixture
async def client(server, transports):
    """Makes connected clients, as guests or with a token, and closes them after the test."""
    clients = []
    numbers = itertools.count(1)

    async def make(token=None, **options):
        client = Client(server, transports, **options)
        client.name = f"client {next(numbers)}"
        clients.append(client)
        return await client.connect(token)

    yield make
    for client in clients:
        await client.close()
