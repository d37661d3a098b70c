// The sources of backends of each pool: what they find, how old that is, and when they are asked next.

import { ask } from './api.js';
import { clock, copyOf, plural, put, putBadge, span } from './words.js';

// Times in milliseconds. What happens to backends may have come from a source: it is looked at soon, and not each time.
const SOON = 1_000;

const TONES = { found: 'ok', nothing: 'warn', failed: 'bad', waiting: 'off' };

const isKept = (source) => source.state !== 'found' && source.backends > 0;

// What the badge of a source has, with its tone: backends that are kept serve.
export function stateOfSource(source) {
  const tone = TONES[source.state] ?? 'off';
  return isKept(source) ? [`${source.state}, last good kept`, 'warn'] : [source.state, tone];
}

export class Sources {
  #all = [];
  #asked = 0;
  #timer = null;

  // `onNews()` is called when there is something new to show.
  constructor(onNews) {
    this.onNews = onNews;
  }

  async refresh(signal) {
    const asked = performance.now();
    const all = await ask('GET', 'v1/discovery').catch(() => null);
    // While there is no connection the streams say so.
    if (!all || signal.aborted) return;
    this.#all = all;
    this.#asked = asked;
    this.onNews();
  }

  refreshSoon(signal) {
    if (this.#timer !== null) return;
    this.#timer = setTimeout(() => {
      this.#timer = null;
      this.refresh(signal);
    }, SOON);
  }

  clear() {
    this.#all = [];
  }

  get all() {
    return this.#all;
  }

  of(pool) {
    return this.#all.filter((source) => source.pool === pool);
  }

  // All about a source but its state and its name.
  wordsOf(source) {
    const passed = (performance.now() - this.#asked) / 1000;
    const words = [plural(source.backends, 'backend')];
    words.push(source.age === null ? 'no answer yet' : `answered ${span(source.age + passed)} ago`);
    if (source.next !== null) words.push(source.next > passed ? `next query in ${span(source.next - passed)}` : 'being queried');
    if (source.state !== 'found') words.push(`so since ${clock(source.since)}`);
    if (source.left_out.length > 0) words.push(`${source.left_out.length} left out: ${source.left_out[0]}`);
    if (source.note) words.push(source.note);
    return words.join(' · ');
  }
}

// A list of sources in the card of a pool.
export class SourceList {
  #rows = [];

  constructor(list) {
    this.list = list;
  }

  show(sources, pool) {
    const all = sources.of(pool);
    while (this.#rows.length > all.length) this.#rows.pop().node.remove();
    while (this.#rows.length < all.length) this.#rows.push(this.#add());
    all.forEach((source, index) => {
      const row = this.#rows[index];
      put(row.name, source.source);
      putBadge(row.badge, ...stateOfSource(source));
      put(row.words, sources.wordsOf(source));
    });
    if (this.list.hidden !== (all.length === 0)) this.list.hidden = all.length === 0;
  }

  #add() {
    const node = copyOf('source');
    this.list.append(node);
    const find = (name) => node.querySelector(name);
    return { node, name: find('.name'), badge: find('.badge'), words: find('.words') };
  }
}
