// Figures and times as people read them, and the few lines that put them into the page. No state, no clock.

const WHOLE = new Intl.NumberFormat('en', { maximumFractionDigits: 0 });
const NOTHING = '–';

export const count = (n) => WHOLE.format(n);

// Something a second.
export function rate(n) {
  if (n === null || n === undefined) return NOTHING;
  return n > 0 && n < 9.95 ? n.toFixed(1) : WHOLE.format(n);
}

// 1234567 -> "1.2 MB".
export function bytes(n) {
  if (n === null || n === undefined) return NOTHING;
  const units = ['B', 'kB', 'MB', 'GB', 'TB', 'PB'];
  let unit = 0;
  while (n >= 999.5 && unit < units.length - 1) {
    n /= 1000;
    unit += 1;
  }
  return `${unit > 0 && n < 99.95 ? n.toFixed(1) : n.toFixed(0)} ${units[unit]}`;
}

export const bytesRate = (n) => (n === null || n === undefined ? NOTHING : `${bytes(n)}/s`);

// A short time, in seconds: "0.31 ms".
export function latency(seconds) {
  if (seconds === null || seconds === undefined) return NOTHING;
  const ms = seconds * 1000;
  if (ms === 0) return '0 ms';
  if (ms < 9.995) return `${Number(ms.toPrecision(2))} ms`;
  return ms < 999.5 ? `${ms.toFixed(0)} ms` : `${Number(seconds.toPrecision(2))} s`;
}

// A long time, in seconds: "4 h 10 min".
export function span(seconds) {
  const s = Math.max(0, Math.floor(seconds));
  if (s < 60) return `${s} s`;
  const minutes = Math.floor(s / 60);
  if (minutes < 60) return `${minutes} min`;
  const hours = Math.floor(minutes / 60);
  return hours < 48 ? `${hours} h ${minutes % 60} min` : `${Math.floor(hours / 24)} d ${hours % 24} h`;
}

// The time of day, as this machine has it.
export const clock = (time) => new Date(time).toLocaleTimeString('en-GB');

export const plural = (n, one, many = `${one}s`) => `${count(n)} ${n === 1 ? one : many}`;

export const byId = (id) => document.getElementById(id);

// The only element of a template, copied.
export const copyOf = (id) => byId(id).content.firstElementChild.cloneNode(true);

// Writes what has changed, and only that: a thousand rows are looked at every second, few of them change. Answers whether
// it has.
export function put(node, text) {
  if (node.putText === text) return false;
  node.putText = text;
  node.textContent = text;
  return true;
}

// The same with a badge and its tone: ok, warn, bad, off. No text: no badge.
export function putBadge(node, text, tone) {
  put(node, text);
  if (node.dataset.tone !== tone) node.dataset.tone = tone;
  if (node.hidden !== !text) node.hidden = !text;
}
