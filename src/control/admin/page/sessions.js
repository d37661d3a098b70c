// The sessions that have ended, by reason.

import { byId, copyOf, count, put } from './words.js';

// The ends that a client sees as a failure.
const FAILURES = new Set([
  'backend_reset',
  'backend_lost',
  'no_backend',
  'connect_refused',
  'connect_timeout',
  'connect_unreachable',
  'connect_failed',
  'local_limit',
]);

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
