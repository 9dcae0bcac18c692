"""raise_hand as a function over HTTP: ROLLCALL_FUNCTIONS_SECRET=whsec_... python3 raise_hand.py"""
import base64, hmac, json, os
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

KEY = base64.b64decode(os.environ["ROLLCALL_FUNCTIONS_SECRET"].removeprefix("whsec_"))


class Function(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"  # the gateway keeps its connections
    wbufsize = -1  # head and body in one piece

    def do_POST(self):
        body = self.rfile.read(int(self.headers["content-length"]))
        signed = f"{self.headers['webhook-id']}.{self.headers['webhook-timestamp']}.".encode() + body
        signature = "v1," + base64.b64encode(hmac.digest(KEY, signed, "sha256")).decode()
        if not hmac.compare_digest(signature, self.headers["webhook-signature"]):
            return self.answer(401, {"message": "not signed by the gateway"})
        call = json.loads(body)
        raised = {"by": call["session"]["agent_id"], "hand": call["payload"]["hand"]}
        publish = [{"to": "lesson", "entity_type": "hand", "operation": "raised", "body": raised}]
        self.answer(200, {"data": raised, "publish": publish})

    def answer(self, status, answer):
        body = json.dumps(answer).encode()
        self.send_response(status)
        self.send_header("content-length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)


ThreadingHTTPServer(("127.0.0.1", int(os.environ.get("PORT", "8000"))), Function).serve_forever()
