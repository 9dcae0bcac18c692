#!/usr/bin/env python3
"""python-socketio's client against a gateway that this script starts, over each transport.

usage: ROLLCALL=BINARY client.py     run it in a folder of its own
"""
import base64
import hashlib
import hmac
import json
import os
import signal
import socket
import subprocess
import threading
import time
import urllib.parse
import urllib.request

import socketio

SOON = 10
SECRET = "0123456789abcdef0123456789abcdef"
ROOM = "6f1c9d3e-5a40-4a39-9d3b-0d3f7d7c1a01"
LESSON = "algebra"
SUCCESS = {"status": "SUCCESS", "data": {}}
ROLLCALL = os.environ["ROLLCALL"]


def token(sub, lifetime=3600):
    def part(value):
        return base64.urlsafe_b64encode(value).rstrip(b"=")

    claims = {"iss": "test", "aud": "example.org", "sub": sub, "exp": int(time.time()) + lifetime}
    message = part(b'{"alg":"HS256"}') + b"." + part(json.dumps(claims).encode())
    return (message + b"." + part(hmac.digest(SECRET.encode(), message, hashlib.sha256))).decode()


def free_address():
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return f"127.0.0.1:{probe.getsockname()[1]}"


class Gateway:
    """A gateway with one lesson, in the current folder."""

    def __init__(self):
        self.clients, self.admin = free_address(), free_address()
        self.environment = {
            **os.environ,
            "ROLLCALL_HS256_SECRET": SECRET,
            "DATABASE_URL": "sqlite:rollcall.db",
            "ROLLCALL_LISTEN": self.clients,
            "ROLLCALL_ADMIN_LISTEN": self.admin,
            "ROLLCALL_GUESTS": "true",
            "ROLLCALL_LOG": "warn",
        }
        with open("lessons.csv", "w", encoding="utf-8") as lessons:
            lessons.write(f"lesson_id,classroom_id,seats\n{LESSON},{ROOM},3\n")
        with open("attendees.csv", "w", encoding="utf-8") as attendees:
            attendees.write("lesson_id,user_id,seat\n")
        load = [ROLLCALL, "load", "--lessons", "lessons.csv", "--attendees", "attendees.csv"]
        subprocess.run(load, env=self.environment, check=True)
        self.start()

    def start(self):
        self.process = subprocess.Popen([ROLLCALL], env=self.environment, stdout=subprocess.PIPE, text=True)
        assert any(line.startswith("admin on ") for line in self.process.stdout), "the gateway ended"

    def end(self, how):
        self.process.send_signal(how)
        self.process.communicate()

    def publish(self, subject, body):
        data = json.dumps({"subject": subject, "body": body}).encode()
        with urllib.request.urlopen(f"http://{self.admin}/api/v1/publish", data) as answer:
            assert answer.status == 202


gateway = Gateway()
refusals = []


class Client:
    """A client that keeps its events."""

    def __init__(self, transports, auth=None, query=None, headers=None, reconnection=False):
        self.events, self.came = [], threading.Condition()
        self.socket = socketio.Client(reconnection=reconnection, reconnection_delay=0.05, reconnection_delay_max=0.2)
        self.socket.on("*", self.note)
        self.socket.on("connect_error", refusals.append)
        url = f"http://{gateway.clients}/?{urllib.parse.urlencode(query or {})}"
        self.socket.connect(url, headers=headers or {}, auth=auth, transports=transports, wait_timeout=SOON)

    def note(self, name, *arguments):
        with self.came:
            self.events.append((name, arguments))
            self.came.notify_all()

    def event(self, name, fits=lambda argument: True, count=1):
        """Returns the argument of an event, once as many as `count` have come."""

        def found():
            return [args[0] for known, args in self.events if known == name and fits(args[0])][count - 1 : count]

        with self.came:
            assert self.came.wait_for(found, SOON), f"no {name} among {self.events}"
            return found()[0]

    def join(self, data):
        return self.socket.call("join_lesson", data, timeout=SOON)


def joins_events_and_acks(transports):
    alice = Client(transports, {"token": token("alice")})
    assert alice.join({"lesson_id": LESSON}) == SUCCESS
    assert alice.event("connect_success")["sid"] == alice.socket.get_sid()
    assert alice.join({"lesson_id": "none"}) == {"status": "ERROR", "message": "lesson not found"}
    bob = Client(transports, {"token": token("bob"), "lesson_id": LESSON})
    bob.socket.emit("join_lesson")
    session = bob.event("connect_success")["session_id"]
    alice.event("agent.entered", lambda push: push["id"]["sequence_id"] == session)
    assert bob.join(None) == SUCCESS
    gateway.publish(f"lesson.{LESSON}.board", {"drawn": [1, "é"]})
    for client in (alice, bob):
        assert client.event("board") == {"drawn": [1, "é"]}
    bob.socket.emit("nonsense", 1)
    assert bob.event("request_error")["message"] == "unknown event"
    assert bob.join(b"binary")["message"] == "invalid payload"
    bob.socket.disconnect()
    alice.event("agent.left", lambda push: push["id"]["sequence_id"] == session)
    alice.socket.disconnect()


def a_token_wherever_it_may_stand(transports):
    for place in (
        {"auth": {"access_token": token("a")}},
        {"query": {"token": token("b")}},
        {"query": {"access_token": token("c")}},
        {"query": {"auth": token("d")}},
        {"headers": {"Authorization": f"Bearer {token('e')}"}},
        {"auth": {"token": token("f")}, "query": {"token": "x"}},
    ):
        client = Client(transports, **place)
        assert client.join({"lesson_id": LESSON}) == SUCCESS, place
        assert client.event("connect_success"), place
        client.socket.disconnect()


def a_guest(transports):
    guest = Client(transports)
    assert guest.join({"lesson_id": LESSON}) == SUCCESS
    gateway.publish(f"lesson.{LESSON}.bell", {"rings": True})
    assert guest.event("bell") == {"rings": True}
    guest.socket.disconnect()


def a_refusal(transports):
    try:
        Client(transports, {"token": "x"})
    except socketio.exceptions.ConnectionError:
        assert refusals.pop()["message"] == "unauthenticated"
    else:
        raise AssertionError("let in")


def a_kill_a_drain_and_the_return_of_the_node(transports):
    client = Client(transports, {"token": token("storm"), "lesson_id": LESSON}, reconnection=True)
    client.socket.on("connect", lambda: client.socket.emit("join_lesson"))
    client.socket.emit("join_lesson")
    client.event("connect_success")
    gateway.end(signal.SIGKILL)
    gateway.start()
    client.event("connect_success", count=2)
    gateway.end(signal.SIGTERM)
    client.event("session_error", lambda error: error["type"] == "terminated")
    gateway.start()
    client.event("connect_success", count=3)
    client.socket.disconnect()


def an_expired_token_is_renewed_by_reconnecting(transports):
    lifetimes = [3600, 2]
    client = Client(transports, lambda: {"token": token("late", lifetimes.pop()), "classroom_id": ROOM}, reconnection=True)
    client.event("session_error", lambda error: error["type"] == "token_expired")
    client.event("connect_success", count=2)
    client.socket.disconnect()


CASES = (
    joins_events_and_acks,
    a_token_wherever_it_may_stand,
    a_guest,
    a_refusal,
    an_expired_token_is_renewed_by_reconnecting,
    a_kill_a_drain_and_the_return_of_the_node,
)
try:
    for case in CASES:
        for transports in (["websocket"], ["polling"], None):
            case(transports)
            print(f"ok      python-socketio {transports or 'polling, then websocket'}: {case.__name__.replace('_', ' ')}")
finally:
    gateway.end(signal.SIGKILL)
