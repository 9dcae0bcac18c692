// 200 virtual users in rooms of 20: enter a classroom, join its lesson, see the
// others come, leave, and see the others go. `make k6` starts a gateway for it.
//
// Invariant: what each user sees does not depend on timing. The teacher is there first and leaves first, when all 19
// participants have come. A participant leaves when all participants with a lower slot have left. So no user leaves
// before all entered events are out, every pair yields at least one entered (PROTOCOL 2: of two users that enter at
// once, at least one sees the other), and exactly one left.
//
// ROLLCALL_WS              the gateway, host:port
// ROLLCALL_HS256_SECRET    signs the tokens
// ROLLCALL_ISSUER          the tokens' iss, "rollcall" by default
import { check } from 'k6';
import exec from 'k6/execution';
import { Counter, Trend } from 'k6/metrics';
import { AUDIENCE, ROOM_SIZE, classroomId, lessonId, token, userId } from './classroom.js';
import { WebSocket } from './websocket.js';

const ROOMS = 10;
const PAIRS = ROOMS * ((ROOM_SIZE * (ROOM_SIZE - 1)) / 2);
const DEADLINE_MS = 30000;

const connectTime = new Trend('rollcall_connect_time', true);
const joinTime = new Trend('rollcall_join_time', true);
const enteredSeen = new Counter('rollcall_entered_seen');
const leftSeen = new Counter('rollcall_left_seen');
const finished = new Counter('rollcall_finished');

const each = { executor: 'per-vu-iterations', iterations: 1, maxDuration: '60s' };
export const options = {
  scenarios: {
    teachers: { ...each, exec: 'teacher', vus: ROOMS },
    participants: { ...each, exec: 'participant', vus: ROOMS * (ROOM_SIZE - 1), startTime: '2s' },
  },
  thresholds: {
    checks: ['rate==1'],
    rollcall_connect_time: ['p(95)<1000'],
    rollcall_join_time: ['p(95)<500'],
    rollcall_entered_seen: [`count>=${PAIRS}`],
    rollcall_left_seen: [`count==${PAIRS}`],
    rollcall_finished: [`count==${ROOMS * ROOM_SIZE}`],
  },
};

export function setup() {
  for (const name of ['ROLLCALL_WS', 'ROLLCALL_HS256_SECRET']) {
    if (!__ENV[name]) exec.test.abort(`${name} is not set`);
  }
}

export function teacher() {
  attend(exec.scenario.iterationInTest, 0, 'teacher');
}

export function participant() {
  const index = exec.scenario.iterationInTest;
  attend(index % ROOMS, 1 + Math.floor(index / ROOMS), 'participant');
}

function attend(room, slot, role) {
  const agents = Array.from({ length: ROOM_SIZE }, (_, other) => `web.${userId(room, other)}.${AUDIENCE}`);
  const self = agents[slot];
  const entered = new Set();
  const left = new Set();
  let asked; // when the request that is being answered was sent
  let joined = false;
  let leaving = false;
  let unexpected = 0;

  const socket = new WebSocket(`ws://${__ENV.ROLLCALL_WS}/ws`);
  const deadline = setTimeout(() => socket.close(), DEADLINE_MS);

  const ask = (message) => {
    asked = Date.now();
    socket.send(JSON.stringify(message));
  };
  const leaveWhenDone = () => {
    const done = slot === 0 ? entered.size === ROOM_SIZE - 1 : agents.slice(0, slot).every((a) => left.has(a));
    if (joined && done && !leaving) {
      leaving = true;
      socket.close(1000);
    }
  };
  const see = (agent, seen, metric) => {
    if (agent === self || seen.has(agent) || !agents.includes(agent)) unexpected += 1;
    seen.add(agent);
    metric.add(1);
  };

  socket.onopen = () =>
    ask({
      type: 'connect_request',
      payload: {
        token: token(__ENV.ROLLCALL_HS256_SECRET, __ENV.ROLLCALL_ISSUER || 'rollcall', userId(room, slot), role),
        classroom_id: classroomId(room),
        agent_label: 'web',
      },
    });
  socket.onmessage = ({ data }) => {
    const message = JSON.parse(data);
    const event = message.id && `${message.id.entity_type}.${message.id.operation}`;
    if (event === 'agent.entered') {
      see(message.payload.agent_id, entered, enteredSeen);
    } else if (event === 'agent.left') {
      see(message.payload.agent_id, left, leftSeen);
    } else if (message.type === 'connect_success') {
      connectTime.add(Date.now() - asked);
      check(message, { 'connect_success names the agent': (m) => m.payload.agent_id === self });
      ask({ type: 'join_lesson', ref: 1, payload: { lesson_id: lessonId(room) } });
    } else {
      joinTime.add(Date.now() - asked);
      joined = check(message, {
        'the lesson is joined': (m) => m.type === 'ack' && m.ref === 1 && m.status === 'SUCCESS',
      });
      if (!joined) console.error(`${self}: ${data}`);
    }
    leaveWhenDone();
  };
  socket.onerror = ({ error }) => console.error(`${self}: ${error}`);
  socket.onclose = () => {
    clearTimeout(deadline);
    finished.add(1);
    check(null, {
      'saw those who had to come or go first': () => leaving,
      'saw nobody twice, no stranger and not itself': () => unexpected === 0,
    });
  };
}
