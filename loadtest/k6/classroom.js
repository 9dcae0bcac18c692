// A Rollcall classroom for the k6 scripts: its ids, its tokens, and the lessons for `rollcall load`.
// Invariant: ids depend on the room's number only, so the CSV files that lessons.sh writes and the script under load
// use the same ids without exchanging them.
import crypto from 'k6/crypto';
import encoding from 'k6/encoding';

export const ROOM_SIZE = 20;
export const AUDIENCE = 'k6.example.org';

export const classroomId = (room) => `00000000-0000-4000-8000-${String(room).padStart(12, '0')}`;
export const lessonId = (room) => `k6-${room}`;
export const userId = (room, slot) => `k6-${room}-${slot}`;

/** A JWT, signed with HS256, that expires in ten minutes. */
export function token(secret, issuer, sub, role) {
  const part = (object) => encoding.b64encode(JSON.stringify(object), 'rawurl');
  const exp = Math.floor(Date.now() / 1000) + 600;
  const head = part({ alg: 'HS256', typ: 'JWT' });
  const body = part({ iss: issuer, aud: AUDIENCE, sub, role, exp });
  return `${head}.${body}.${crypto.hmac('sha256', secret, `${head}.${body}`, 'base64rawurl')}`;
}
