// What has happened lately, newest first, and what happens.

import { ask, follow } from './api.js';
import { clock, copyOf, put, putBadge } from './words.js';

// Rows that are kept.
const KEPT = 200;
// The stream says at least so often that it is still there.
const SILENCE = 40_000;

const TONES = { health: 'off', eligibility: 'bad', backend: 'off', reload: 'off', process: 'off', sessions: 'warn' };

function toneOf({ kind, message }) {
  if (kind === 'health') return /\bdown\b/.test(message) ? 'bad' : 'ok';
  if (kind === 'eligibility') return /\bagain\b/.test(message) ? 'ok' : 'bad';
  if (kind === 'reload') return /\b(refused|failed)\b/.test(message) ? 'bad' : 'ok';
  return TONES[kind] ?? 'off';
}

export class Events {
  #last = -1;
  #nodes = new Map();

  // `onEvent(event)` is called for each event while the page is open.
  constructor(list, note, onEvent) {
    Object.assign(this, { list, note, onEvent });
  }

  clear() {
    this.#last = -1;
    this.#nodes.clear();
    this.list.replaceChildren();
    put(this.note, '');
  }

  add(events) {
    events.forEach((event) => this.#add(event));
  }

  follow(signal) {
    const on = {
      silence: SILENCE,
      // The stream is open before the list is asked for, so that nothing falls between the two.
      open: () => this.#catchUp().catch((error) => put(this.note, error.message)),
      message: (name, data) => {
        if (name === 'missed') return this.#catchUp().catch((error) => put(this.note, error.message));
        if (name !== 'event') return undefined;
        const event = JSON.parse(data);
        this.#add(event);
        return this.onEvent(event);
      },
      lost: () => put(this.note, 'not live'),
      // The other stream says so too, and the page asks for another token.
      refused: () => put(this.note, 'not live'),
    };
    return follow('v1/events/stream', on, signal);
  }

  async #catchUp() {
    const after = this.#last < 0 ? '' : `&after=${this.#last}`;
    const events = await ask('GET', `v1/events?limit=${KEPT}${after}`);
    events.sort((a, b) => a.id - b.id).forEach((event) => this.#add(event));
    put(this.note, events.length === 0 && this.list.childElementCount === 0 ? 'none yet' : 'live, newest first');
  }

  #add(event) {
    if (this.#nodes.has(event.id)) return;
    const node = copyOf('event');
    const find = (name) => node.querySelector(name);
    const time = find('time');
    time.dateTime = event.time;
    time.textContent = clock(event.time);
    putBadge(find('.badge'), event.kind, toneOf(event));
    const subject = [event.pool, event.backend].filter(Boolean).join(' / ');
    put(find('.what'), subject);
    put(find('.message'), event.message);
    put(find('.who'), event.who ? `by ${event.who}` : '');
    // What is caught up with may come behind what has happened since.
    const older = [...this.#nodes.keys()].filter((id) => id < event.id);
    this.list.insertBefore(node, this.#nodes.get(Math.max(...older)) ?? null);
    this.#nodes.set(event.id, node);
    this.#last = Math.max(this.#last, event.id);
    if (this.#nodes.size > KEPT) this.#drop(Math.min(...this.#nodes.keys()));
    put(this.note, 'live, newest first');
  }

  #drop(id) {
    this.#nodes.get(id).remove();
    this.#nodes.delete(id);
  }
}
