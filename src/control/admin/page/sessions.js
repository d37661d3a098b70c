// The sessions that have moved most or are open longest, asked for only while their part is open; and those that have
// ended, by reason.

import { ask } from './api.js';
import { byId, bytes, copyOf, count, put, span } from './words.js';

const SHOWN = 20;
// The ends that a client sees as a failure.
const FAILURES = new Set([
  'backend_reset',
  'backend_lost',
  'no_backend',
  'connect_refused',
  'connect_timeout',
  'connect_unreachable',
  'connect_failed',
  'tls_refused',
  'local_limit',
]);

export class Talkers {
  constructor() {
    this.part = byId('talkers-part');
    this.by = byId('talkers-by');
    this.rows = [];
  }

  // `signal()` returns what ends a request.
  listen(signal) {
    this.part.addEventListener('toggle', () => this.refresh(signal()));
    this.by.addEventListener('change', () => this.refresh(signal()));
  }

  async refresh(signal) {
    if (!this.part.open) return;
    const by = this.by.value;
    const note = byId('talkers-note');
    let page = null;
    try {
      page = await ask('GET', `v1/sessions?sort=${by}&limit=${SHOWN}`);
    } catch (error) {
      if (!signal.aborted) put(note, error.message);
    }
    if (!page || signal.aborted || by !== this.by.value) return;
    const { sessions } = page;
    put(note, sessions.length === 0 ? 'no session is open' : sessions.length < SHOWN ? '' : `the first ${SHOWN}; l4lb ctl sessions has all`);
    while (this.rows.length > sessions.length) this.rows.pop().remove();
    while (this.rows.length < sessions.length) {
      const row = copyOf('talker');
      byId('talkers').append(row);
      this.rows.push(row);
    }
    sessions.forEach((session, index) => showRow(this.rows[index], session));
  }
}

function showRow(row, session) {
  const cell = (name) => row.querySelector(`.${name}`);
  put(cell('client'), session.client);
  put(cell('backend'), session.backend === null ? session.pool : `${session.pool} / ${session.backend}`);
  put(cell('state'), session.state.replace('_', '-'));
  put(cell('age'), span(session.age));
  put(cell('idle'), span(session.idle));
  put(cell('to-backend'), bytes(session.to_backend));
  put(cell('to-client'), bytes(session.to_client));
  put(cell('id'), session.id);
}

export class Ended {
  #rows = new Map();

  // `lately`: the numbers of the last minutes by reason, `ever`: those since the start.
  show(lately, ever) {
    const reasons = Object.keys(ever);
    byId('ended-note').hidden = reasons.length > 0;
    for (const [reason, row] of this.#rows) {
      if (reason in ever) continue;
      row.remove();
      this.#rows.delete(reason);
    }
    for (const reason of reasons) {
      const row = this.#rows.get(reason) ?? this.#add(reason);
      const now = lately.get(reason) ?? 0;
      put(row.querySelector('.lately'), count(now));
      put(row.querySelector('.ever'), count(ever[reason]));
      row.classList.toggle('failing', now > 0 && FAILURES.has(reason));
    }
  }

  #add(reason) {
    const row = copyOf('reason');
    put(row.querySelector('th'), reason.replaceAll('_', ' '));
    byId('ended').append(row);
    this.#rows.set(reason, row);
    return row;
  }
}
