// raise_hand as a function over HTTP: ROLLCALL_FUNCTIONS_SECRET=whsec_... npx tsx raise_hand.ts
import { createHmac, timingSafeEqual } from "node:crypto";
import { createServer } from "node:http";
import { text } from "node:stream/consumers";

type Call = { payload: { hand: string }; session: { agent_id: string | null } };

const key = Buffer.from(process.env.ROLLCALL_FUNCTIONS_SECRET!.replace(/^whsec_/, ""), "base64");

createServer(async (request, response) => {
  const { "webhook-id": id, "webhook-timestamp": time, "webhook-signature": signature = "" } = request.headers;
  const body = await text(request);
  const signed = Buffer.from("v1," + createHmac("sha256", key).update(`${id}.${time}.${body}`).digest("base64"));
  const given = Buffer.from(String(signature));
  if (given.length !== signed.length || !timingSafeEqual(given, signed)) {
    return response.writeHead(401).end(JSON.stringify({ message: "not signed by the gateway" }));
  }
  const { payload, session }: Call = JSON.parse(body);
  const raised = { by: session.agent_id, hand: payload.hand };
  const publish = [{ to: "lesson", entity_type: "hand", operation: "raised", body: raised }];
  response.end(JSON.stringify({ data: raised, publish }));
}).listen(Number(process.env.PORT ?? 8000), "127.0.0.1");
