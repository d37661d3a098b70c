// The listeners: where clients come in, with rates between two answers of the API.

import { ask } from './api.js';
import { line, spanOf } from './chart.js';
import { newest } from './history.js';
import { byId, bytesRate, copyOf, count, put, putBadge, rate } from './words.js';

const SPARK = { width: 96, height: 24 };
// Rows that are shown: a page with thousands of them helps as little as one without.
const SHOWN_MAX = 100;
// Seconds between two answers below which they make no rate.
const RATE_OVER = 1;
const COUNTS = { opened: 'accepted', failures: 'failed', toBackend: 'to_backend', toClient: 'to_client' };

export class Listeners {
  #rows = new Map();
  // By name: the last answer, { asked, counted, listener }, of which rates count from `counted`, and the points { time, opened, ... } of the last minutes.
  #last = new Map();
  #points = new Map();

  get all() {
    return [...this.#last.values()].map(({ listener }) => listener);
  }

  clear() {
    this.#last.clear();
    this.#points.clear();
  }

  // Takes the last minutes as the process has kept them.
  fill(past) {
    for (const [name, points] of past) {
      const end = points.at(-1)?.time ?? 0;
      this.#points.set(name, [...points, ...(this.#points.get(name) ?? []).filter((point) => point.time > end)]);
    }
    this.#show();
  }

  // `now`: the time that the process has, in seconds.
  async refresh(signal, now) {
    const all = await ask('GET', 'v1/listeners').catch(() => null);
    // While there is no connection the streams say so.
    if (!all || signal.aborted) return;
    const asked = performance.now() / 1000;
    const known = new Map(all.map((listener) => [listener.name, { asked, counted: listener, listener }]));
    for (const [name, next] of known) {
      const before = this.#last.get(name);
      if (!before || now === null) continue;
      if (asked - before.asked < RATE_OVER) {
        [next.asked, next.counted] = [before.asked, before.counted];
        continue;
      }
      const point = { time: now };
      for (const [key, field] of Object.entries(COUNTS)) {
        point[key] = Math.max(0, next.listener[field] - before.counted[field]) / (asked - before.asked);
      }
      this.#points.set(name, newest([...(this.#points.get(name) ?? []), point], now));
    }
    for (const name of this.#points.keys()) if (!known.has(name)) this.#points.delete(name);
    this.#last = known;
    this.#show();
  }

  #show() {
    const all = this.all;
    const shown = all.slice(0, SHOWN_MAX);
    const names = new Set(shown.map(({ name }) => name));
    for (const [name, row] of this.#rows) {
      if (names.has(name)) continue;
      row.remove();
      this.#rows.delete(name);
    }
    shown.forEach((listener) => this.#showRow(listener));
    const more = all.length - shown.length;
    put(byId('listeners-note'), more > 0 ? `and ${count(more)} more: l4lb ctl listeners has all` : '');
    byId('listeners-note').hidden = more <= 0;
  }

  #showRow(listener) {
    let row = this.#rows.get(listener.name);
    if (!row) {
      row = copyOf('listener');
      row.querySelector('.spark').setAttribute('viewBox', `0 0 ${SPARK.width} ${SPARK.height}`);
      this.#rows.set(listener.name, row);
      byId('listeners').append(row);
    }
    const cell = (name) => row.querySelector(`.${name}`);
    const points = this.#points.get(listener.name) ?? [];
    const last = points.at(-1) ?? {};
    put(cell('name'), listener.name);
    put(cell('address'), listener.address === listener.name ? '' : listener.address);
    putBadge(cell('paused'), listener.paused ? 'paused' : '', 'warn');
    put(cell('pool-name'), listener.pool);
    const most = listener.max_sessions === null ? '' : ` of ${count(listener.max_sessions)}`;
    put(cell('sessions'), count(listener.sessions) + most);
    put(cell('opened'), rate(last.opened));
    const failing = last.failures > 0;
    put(cell('failures'), count(listener.failed) + (failing ? ` (+${rate(last.failures)}/s)` : ''));
    cell('failures').classList.toggle('failing', failing);
    put(cell('to-backend'), bytesRate(last.toBackend));
    put(cell('to-client'), bytesRate(last.toClient));
    if (points.length > 0) cell('spark').firstElementChild.setAttribute('d', pathOf(points));
  }
}

function pathOf(points) {
  const end = points.at(-1).time;
  const seconds = spanOf(points);
  const most = Math.max(1, ...points.map((point) => point.opened ?? 0));
  const x = (time) => SPARK.width * (1 - (end - time) / seconds);
  const y = (value) => SPARK.height - 2 - (SPARK.height - 4) * (value / most);
  return line(points, 'opened', x, y);
}
