"""What the load generator measures, on python-socketio: the same events as `socketio/examples/fanout.rs`.

Served by uvicorn with uvloop, httptools and websockets, as its documentation recommends for production: one worker, no access
log. The websocket pings of uvicorn are off, since Engine.IO has its own; so is compression, which no other server here offers.
"""

import argparse
from collections import defaultdict

import socketio
import uvicorn

NAMESPACE = "/bench"

sio = socketio.AsyncServer(async_mode="asgi")
# `sio.rooms` walks over all rooms of the namespace for each call.
rooms = defaultdict(list)


@sio.on("connect", namespace=NAMESPACE)
async def connect(sid, environ):
    pass


@sio.on("disconnect", namespace=NAMESPACE)
async def disconnect(sid, reason):
    rooms.pop(sid, None)


@sio.on("join", namespace=NAMESPACE)
async def join(sid, room):
    await sio.enter_room(sid, room, namespace=NAMESPACE)
    rooms[sid].append(room)


@sio.on("cast", namespace=NAMESPACE)
async def cast(sid, payload):
    await sio.emit("cast", payload, room=rooms[sid], namespace=NAMESPACE)


@sio.on("echo", namespace=NAMESPACE)
async def echo(sid, payload):
    return payload


if __name__ == "__main__":
    parser = argparse.ArgumentParser()
    parser.add_argument("--port", type=int, default=3000)
    uvicorn.run(
        socketio.ASGIApp(sio),
        host="127.0.0.1",
        port=parser.parse_args().port,
        loop="uvloop",
        http="httptools",
        ws="websockets-sansio",
        ws_ping_interval=None,
        ws_per_message_deflate=False,
        access_log=False,
        log_level="warning",
        timeout_graceful_shutdown=1,
    )
