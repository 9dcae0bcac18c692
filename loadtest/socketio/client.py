#!/usr/bin/env python3
"""python-socketio's client against a running gateway, over each transport.

usage: client.py URL LESSON TOKEN OTHER_TOKEN
"""
import sys
import threading

import socketio

SOON = 10
url, lesson, token, other_token = sys.argv[1:]


class Client:
    """A client that keeps its events."""

    def __init__(self, auth, transports):
        self.events, self.came = [], threading.Condition()
        self.socket = socketio.Client(reconnection=False)
        self.socket.on("*", self.note)
        self.socket.on("connect_error", refusals.append)
        self.socket.connect(url, auth=auth, transports=transports, wait_timeout=SOON)

    def note(self, name, *arguments):
        with self.came:
            self.events.append((name, arguments))
            self.came.notify_all()

    def event(self, name, fits=lambda argument: True):
        def found():
            return next((args[0] for known, args in self.events if known == name and fits(args[0])), None)

        with self.came:
            assert self.came.wait_for(found, SOON), f"no {name} among {self.events}"
            return found()

    def join(self, data):
        return self.socket.call("join_lesson", data, timeout=SOON)


refusals = []
for transports in (["websocket"], ["polling"], None):
    alice = Client({"token": token}, transports)
    assert alice.join({"lesson_id": lesson}) == {"status": "SUCCESS", "data": {}}
    assert alice.event("connect_success")["sid"] == alice.socket.get_sid()
    assert alice.join({"lesson_id": "none"}) == {"status": "ERROR", "message": "lesson not found"}
    bob = Client({"token": other_token, "lesson_id": lesson}, transports)
    bob.socket.emit("join_lesson")
    session = bob.event("connect_success")["session_id"]
    alice.event("agent.entered", lambda push: push["id"]["sequence_id"] == session)
    assert bob.join(b"binary")["message"] == "invalid payload"
    bob.socket.disconnect()
    alice.event("agent.left", lambda push: push["id"]["sequence_id"] == session)
    alice.socket.disconnect()
    try:
        Client({"token": "x"}, transports)
        raise AssertionError("let in")
    except socketio.exceptions.ConnectionError:
        assert refusals.pop()["message"] == "unauthenticated"
    print(f"ok      python-socketio {transports or 'polling, then websocket'}")
