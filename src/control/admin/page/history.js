// Samples are totals; this makes rates of them, and keeps those of the last minutes. What happened before the page was
// opened comes from the process.

// Seconds that are kept.
export const KEPT = 300;
// Seconds without a sample that leave a hole in a line.
const HOLE = 3.5;
// Bytes are averaged from the sample that was this old when the one before came, 10 seconds: those of sessions that last are
// counted every 5 only (COUNT_PERIOD in worker/relay/byte_accounting.rs).
const BYTES_OVER = 9.5;

export const keyOf = (backend) => `${backend.pool}\n${backend.name}`;

export class History {
  // What charts show, oldest first: { time, sessions, opened, toBackend, toClient, failures, p50, p99 }.
  points = [];
  // By keyOf(backend): { opened, toBackend, toClient, failures } a second.
  backends = new Map();
  // By name: the same, summed up, with the sessions opened a second over time.
  pools = new Map();
  // Listeners of the last minutes, by name: points as above.
  listeners = new Map();
  // Sessions that have ended, oldest first: { time, counts }, the counts by reason.
  #ended = [];
  // The last samples, oldest first: { time, totals, backends }, the backends by keyOf().
  #recent = [];

  add(sample) {
    const time = Date.parse(sample.time) / 1000;
    const before = this.#recent.at(-1);
    // The clock of the machine was set back: what was before does not fit any more.
    if (before && time < before.time - 1) {
      this.points = [];
      this.#recent = [];
      this.#ended = [];
      this.pools = new Map();
      return this.add(sample);
    }
    // A restarted stream repeats the last sample of the one before.
    if (before && time - before.time < 0.1) return;
    if (before && time - before.time > HOLE) this.points.push({ time: (time + before.time) / 2 });
    const { totals, connect } = sample;
    const now = { time, totals, backends: new Map(sample.backends.map((backend) => [keyOf(backend), backend])) };
    const rates = this.#rates(now, (known) => known.totals, 'accepted');
    // Less to look back on makes no mean: the last one is a better guess, until the process is asked again.
    const first = this.#recent[0];
    const known = this.points.at(-1);
    if (known && (!first || time - first.time < BYTES_OVER / 2)) {
      rates.toBackend = known.toBackend ?? rates.toBackend;
      rates.toClient = known.toClient ?? rates.toClient;
    }
    // Without a sample before there are no rates, and the process knows what was.
    if (before || this.points.length === 0) {
      this.points.push({ time, sessions: totals.sessions, ...rates, p50: connect.p50, p99: connect.p99 });
    }
    this.points = newest(this.points, time);
    if (before) {
      const counts = Object.entries(totals.closed).map(([reason, n]) => [reason, n - (before.totals.closed[reason] ?? 0)]);
      this.#ended = newest([...this.#ended, { time, counts: Object.fromEntries(counts.filter(([, n]) => n > 0)) }], time);
    }
    this.#count(sample, now);
    this.#recent = [...newest(this.#recent, time, BYTES_OVER), now];
  }

  // Takes the last minutes as the process has kept them, in place of all that was seen meanwhile.
  fill(past) {
    if (past.times.length === 0) return;
    const times = past.times.map((time) => Date.parse(time) / 1000);
    const end = times.at(-1);
    const points = pointsOf(times, past.seconds, past.totals);
    points.forEach((point, index) => Object.assign(point, { p50: past.connect_p50[index], p99: past.connect_p99[index] }));
    const holes = times.flatMap((time, index) => (past.seconds[index] > HOLE ? [{ time: time - past.seconds[index] / 2 }] : []));
    const later = this.points.filter((point) => point.time > end && point.opened !== null);
    const { toBackend, toClient } = points.at(-1);
    later.forEach((point) => Object.assign(point, { toBackend, toClient }));
    this.points = [...[...points, ...holes].sort((a, b) => a.time - b.time), ...later];
    const reasons = Object.entries(past.closed);
    const ended = times.map((time, index) => {
      const counts = reasons.map(([reason, all]) => [reason, all[index] ?? 0]);
      return { time, counts: Object.fromEntries(counts.filter(([, n]) => n > 0)) };
    });
    this.#ended = [...ended, ...this.#ended.filter((each) => each.time > end)];
    this.listeners = new Map(past.listeners.map(({ name, ...series }) => [name, pointsOf(times, past.seconds, series)]));
    for (const { name, ...series } of past.pools) {
      const known = this.pools.get(name) ?? { opened: null, toBackend: null, toClient: null, points: [] };
      known.points = [...pointsOf(times, past.seconds, series), ...known.points.filter((point) => point.time > end)];
      this.pools.set(name, known);
    }
  }

  // How many sessions have ended in the last minutes, by reason.
  ended() {
    const sums = new Map();
    for (const { counts } of this.#ended) {
      for (const [reason, n] of Object.entries(counts)) sums.set(reason, (sums.get(reason) ?? 0) + n);
    }
    return sums;
  }

  // How fast the counters grow that `of` finds in what is known of a moment.
  #rates(now, of, opened) {
    const one = this.#recent.at(-1);
    // What has come since the first of them has less to look back on.
    const first = this.#recent.find((known) => of(known));
    const since = (before, counter) => {
      const passed = before ? now.time - before.time : 0;
      return perSecond(of(now)[counter], before && of(before)?.[counter], passed);
    };
    return {
      opened: since(one, opened),
      toBackend: since(first, 'to_backend'),
      toClient: since(first, 'to_client'),
      failures: since(one, 'dial_failures'),
    };
  }

  #count(sample, now) {
    const pools = new Map(sample.pools.map((pool) => [pool.name, { opened: 0, toBackend: 0, toClient: 0 }]));
    this.backends.clear();
    for (const [key, backend] of now.backends) {
      const rates = this.#rates(now, (known) => known.backends.get(key), 'sessions_total');
      this.backends.set(key, rates);
      const pool = pools.get(backend.pool);
      for (const what in pool) pool[what] += rates[what] ?? 0;
    }
    for (const [name, pool] of pools) {
      const points = this.pools.get(name)?.points ?? [];
      // The first sample has no rates.
      const latest = this.#recent.length > 0 ? [{ time: now.time, opened: pool.opened }] : [];
      pool.points = newest([...points, ...latest], now.time);
    }
    this.pools = pools;
  }
}

// The points of counts for samples that ended at those times, and covered so many seconds each.
function pointsOf(times, seconds, series) {
  return times.map((time, index) => {
    const each = (count) => (count === null || seconds[index] <= 0 ? null : count / seconds[index]);
    return {
      time,
      sessions: series.sessions[index],
      opened: each(series.opened[index]),
      failures: each(series.failures[index]),
      toBackend: mean(times, seconds, series.to_backend, index),
      toClient: mean(times, seconds, series.to_client, index),
    };
  });
}

// Bytes a second, over as long a time as those of live samples.
function mean(times, seconds, counts, index) {
  let [bytes, passed] = [0, 0];
  for (let at = index; at >= 0 && counts[at] !== null && times[at] > times[index] - BYTES_OVER; at -= 1) {
    bytes += counts[at];
    passed += seconds[at];
  }
  return passed > 0 ? bytes / passed : null;
}

// Null while there is nothing to compare with. What has begun anew counts from there.
function perSecond(now, before, passed) {
  return before === undefined || passed <= 0 ? null : Math.max(0, now - before) / passed;
}

// Those of the last `kept` seconds, and the last one in any case.
export function newest(points, time, kept = KEPT) {
  const first = points.findIndex((point) => point.time >= time - kept);
  if (points.length === 0) return points;
  return first < 0 ? points.slice(-1) : points.slice(first);
}
