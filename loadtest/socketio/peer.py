#!/usr/bin/env python3
"""What python-socketio does of a join, as seed 003 asks for it: the room, the session, and the ack. No stores."""
import asyncio
import socket

import socketio
import uvicorn

server = socketio.AsyncServer(async_mode="asgi", transports=["websocket"], ping_interval=30)


@server.event
async def connect(sid, environ, auth):
    # The server answers CONNECT after this handler, so the event is sent later.
    asyncio.get_running_loop().call_soon(lambda: asyncio.ensure_future(server.emit("connect_success", {}, to=sid)))


@server.event
async def join_lesson(sid, data):
    await server.enter_room(sid, data["lesson_id"])
    await server.save_session(sid, {"lesson": data["lesson_id"]})
    return {"status": "SUCCESS", "data": {}}


listener = socket.create_server(("127.0.0.1", 0), backlog=4096)
print(f"listening on 127.0.0.1:{listener.getsockname()[1]}", flush=True)
uvicorn.Server(uvicorn.Config(socketio.ASGIApp(server), log_level="error")).run(sockets=[listener])
