"""The published Python client against the binary: joining, events, errors, leaving, losing the connection."""

import asyncio
import re
import uuid

import pytest
import socketio

from conftest import GRACE_MS, SOON, Client, mint

ODER_ID = re.compile(r"^[A-Za-z0-9_-]{10}$")


def user(name):
    user_id = str(uuid.uuid4())
    return user_id, mint({"userId": user_id, "username": name})


async def test_a_guest_joins(server, client):
    room, token = server.create_room(name="Film night")
    owner = await client(token)
    await owner.join(room)
    guest = await client()
    state = await guest.join(room, guestName="Ann")
    assert state["room"]["name"] == "Film night"
    assert state["playback"] is None
    assert ODER_ID.match(state["self"]["oderId"])
    assert isinstance(state["self"]["resumeToken"], str)
    assert isinstance(state["serverTime"], int)
    boss, ann = state["participants"]
    assert (boss["role"], ann["role"], ann["guestName"], ann["online"]) == ("owner", "guest", "Ann", True)
    assert await owner.next("room:participant:joined") == {"participant": ann}


async def test_a_user_joins(server, client):
    room, _ = server.create_room()
    user_id, token = user("bob")
    state = await (await client(token)).join(room)
    (bob,) = state["participants"]
    assert (bob["userId"], bob["username"], bob["role"]) == (user_id, "bob", "participant")
    assert "guestName" not in bob


async def test_a_bad_token_is_refused(server, transports):
    other = Client(server, transports)
    with pytest.raises(socketio.exceptions.ConnectionError):
        await other.connect("nonsense")
    await other.close()


async def test_errors_come_as_ack_and_as_event(server, client):
    room, _ = server.create_room(maxParticipants=2, password="open sesame")
    guest = await client()
    join = {"roomCode": room["code"], "guestName": "Ann", "password": "open sesame"}
    for code, payload in [
        ("VALIDATION_ERROR", join | {"roomCode": 7}),
        ("ROOM_NOT_FOUND", join | {"roomCode": "ZZZZ9999"}),
        ("INVALID_PASSWORD", join | {"password": "wrong"}),
        ("UNAUTHORIZED", {"roomCode": room["code"], "password": "open sesame"}),
    ]:
        answer = await guest.ask("room:join", payload)
        assert answer["ok"] is False
        assert answer["error"]["code"] == code, answer
        assert (await guest.next("room:error"))["code"] == code
    for name in ("one", "two"):
        await (await client()).join(room, guestName=name, password="open sesame")
    assert (await guest.ask("room:join", join))["error"]["code"] == "ROOM_FULL"
    assert (await guest.ask("room:leave", {}))["error"]["code"] == "NOT_IN_ROOM"


async def test_everyone_sees_the_same_film(server, client):
    room, token = server.create_room()
    owner = await client(token)
    await owner.join(room)
    guest = await client()
    await guest.join(room, guestName="Ann")
    assert (await owner.ask("sync:source", {"sourceType": "youtube", "sourceId": "dQw4w9WgXcQ"}))["ok"] is True
    sequence = [(await each.next("sync:state"))["state"]["sequenceNumber"] for each in (owner, guest)][0]
    for event, payload, kind in [
        ("sync:play", {}, "PLAY"),
        ("sync:seek", {"targetMediaTime": 90_000}, "SEEK"),
        ("sync:rate", {"rate": 1.5}, "SET_RATE"),
        ("sync:pause", {}, "PAUSE"),
    ]:
        assert (await owner.ask(event, payload))["ok"] is True
        told = [await each.next("sync:command") for each in (owner, guest)]
        assert told[0] == told[1]
        sequence += 1
        assert (told[0]["command"]["type"], told[0]["command"]["sequenceNumber"]) == (kind, sequence)
    assert (await guest.ask("sync:play", {}))["error"]["code"] == "UNAUTHORIZED"


async def test_the_clock_answers(client):
    guest = await client()
    answer = await guest.ask("time:ping", {"clientTime": 12.5})
    assert answer["clientTime"] == 12.5
    assert await guest.next("time:pong") == {"clientTime": 12.5, "serverTime": answer["serverTime"]}


async def test_leaving_is_told(server, client):
    room, token = server.create_room()
    owner = await client(token)
    await owner.join(room)
    leaver, closer = await client(), await client()
    seats = [(await each.join(room, guestName="Ann"))["self"]["oderId"] for each in (leaver, closer)]
    assert (await leaver.ask("room:leave", {}))["ok"] is True
    assert await owner.next("room:participant:left") == {"oderId": seats[0], "reason": "leave"}
    await closer.close()
    assert await owner.next("room:participant:left") == {"oderId": seats[1], "reason": "disconnect"}


async def test_a_lost_connection_is_resumed(server, client):
    room, token = server.create_room()
    owner = await client(token)
    await owner.join(room)
    guest = await client(reconnection=True, reconnection_delay=0.1, reconnection_delay_max=0.2)
    seat = (await guest.join(room, guestName="Ann"))["self"]
    await guest.next("connect")
    # The sockets are taken from under the client: nothing is said, and it is the client's own business to come back.
    cut(guest.io)
    await guest.next("disconnect")
    await guest.next("connect")
    again = (await guest.join(room, guestName="Ann", resumeToken=seat["resumeToken"]))["self"]
    assert again["oderId"] == seat["oderId"]
    assert again["resumeToken"] != seat["resumeToken"]


async def test_a_lost_connection_that_stays_away_times_out(server, client):
    room, token = server.create_room()
    owner = await client(token)
    await owner.join(room)
    guest = await client()
    seat = (await guest.join(room, guestName="Ann"))["self"]
    await asyncio.sleep(0.1)  # a poll is on its way again
    cut(guest.io)
    updated = await owner.next("room:participant:updated")
    assert (updated["participant"]["oderId"], updated["participant"]["online"]) == (seat["oderId"], False)
    begun = asyncio.get_running_loop().time()
    assert await owner.next("room:participant:left") == {"oderId": seat["oderId"], "reason": "timeout"}
    assert asyncio.get_running_loop().time() - begun >= GRACE_MS / 1000 * 0.8
    assert GRACE_MS / 1000 < SOON


def cut(io):
    """Aborts every TCP connection that the client holds, in use or not."""
    connector = io.eio.http.connector
    idle = [entry[0] for entries in connector._conns.values() for entry in entries]
    held = [*connector._acquired, *idle]
    assert held
    for protocol in held:
        protocol.transport.abort()
