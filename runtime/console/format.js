// Formats numbers, times and names.

const grouped = new Intl.NumberFormat("en", { maximumFractionDigits: 0 });
const UNITS = ["B", "KiB", "MiB", "GiB", "TiB"];

/** Formats a count: 18,000. */
export function count(number) {
  return grouped.format(number);
}

/** Formats a count of things: 1 agent, 2 agents. */
export function things(number, name) {
  return `${count(number)} ${name}${number === 1 ? "" : "s"}`;
}

/** Formats a rate or a time with up to three digits: 0.4, 12.3, 1,200. */
export function short(number) {
  if (number === null || number === undefined) return "–";
  if (number >= 100) return grouped.format(number);
  return String(Math.round(number * (number >= 10 ? 10 : 100)) / (number >= 10 ? 10 : 100));
}

export function millis(number) {
  if (number === null || number === undefined) return "–";
  return number >= 1000 ? `${short(number / 1000)} s` : `${short(number)} ms`;
}

export function bytes(number) {
  let unit = 0;
  while (number >= 1024 && unit < UNITS.length - 1) {
    number /= 1024;
    unit += 1;
  }
  return `${short(number)} ${UNITS[unit]}`;
}

/** Formats a time span of seconds in its two largest units. */
export function span(seconds) {
  const whole = Math.max(0, Math.round(seconds));
  const [days, hours, minutes] = [Math.floor(whole / 86400), Math.floor(whole / 3600) % 24, Math.floor(whole / 60) % 60];
  if (days > 0) return `${days} d ${hours} h`;
  if (hours > 0) return `${hours} h ${minutes} min`;
  if (minutes > 0) return `${minutes} min ${whole % 60} s`;
  return `${whole} s`;
}

function two(number) {
  return String(number).padStart(2, "0");
}

/** Formats a time in the reader's time zone, with its day unless that is today. */
export function clock(moment) {
  const time = new Date(moment);
  const day = time.toDateString() === new Date().toDateString() ? "" : `${date(time)} `;
  return `${day}${two(time.getHours())}:${two(time.getMinutes())}:${two(time.getSeconds())}`;
}

function date(time) {
  return `${time.getFullYear()}-${two(time.getMonth() + 1)}-${two(time.getDate())}`;
}

/** Splits an agent's name: `web.alice.example.org` is alice, with the label web, of example.org. */
export function agent(id) {
  const [label, user, ...audience] = id.split(".");
  let name = user ?? "";
  try {
    name = decodeURIComponent(name);
  } catch {
    // An invalid name is shown unchanged.
  }
  return { label, name, audience: audience.join(".") };
}
