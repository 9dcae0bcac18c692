// A server of Socket.IO on Node that does its part of a join as its documentation shows: the room, the session's
// data, and the ack, without stores.
// usage: PEER=FOLDER_WITH_NODE_MODULES node peer.mjs
import { createServer } from "node:http";
import { createRequire } from "node:module";

const { Server } = createRequire(`${process.env.PEER}/`)("socket.io");
const http = createServer();
const server = new Server(http, { transports: ["websocket"], pingInterval: 30_000, serveClient: false });

server.on("connection", (socket) => {
  socket.emit("connect_success", {});
  socket.on("join_lesson", ({ lesson_id }, ack) => {
    socket.join(lesson_id);
    socket.data.lesson = lesson_id;
    ack({ status: "SUCCESS", data: {} });
  });
});

http.listen(0, "127.0.0.1", () => console.log(`listening on 127.0.0.1:${http.address().port}`));
