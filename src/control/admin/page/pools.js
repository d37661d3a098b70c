// The pools and their backends: a card and a table each, kept from sample to sample, written where they change.

import { line, spanOf } from './chart.js';
import { keyOf } from './history.js';
import { SourceList } from './sources.js';
import { bytesRate, clock, copyOf, count, plural, put, putBadge, rate, span } from './words.js';

// A table with more rows gets a frame of its own to scroll in.
const LONG = 25;
const SPARK = { width: 132, height: 30 };

// How a backend is, in words, each with its tone.
export function stateOf(backend) {
  const forced = backend.health_override ? ', forced' : '';
  const health = {
    up: ['up', 'ok'],
    down: ['down', 'bad'],
    unknown: ['unchecked', 'ok'],
  }[backend.health];
  const admin = { ready: ['', 'off'], drain: ['drain', 'warn'], maint: ['maint', 'off'] }[backend.admin];
  if (backend.admin === 'ready' && backend.weight === 0) admin[0] = 'weight 0';
  return { health: [health[0] + forced, health[1]], admin };
}

export function stateOfPool(pool) {
  if (pool.eligible === 0) return ['no backend', 'bad'];
  return pool.eligible < pool.backends ? ['degraded', 'warn'] : ['serving', 'ok'];
}

class Row {
  constructor(onChange) {
    this.node = copyOf('backend');
    const find = (name) => this.node.querySelector(name);
    const names = ['name', 'address', 'health', 'reason', 'weight', 'sessions', 'opened', 'failures', 'quick', 'more'];
    for (const name of names) this[name] = find(`.${name}`);
    this.admin = find('.badge.admin');
    this.toBackend = find('.to-backend');
    this.toClient = find('.to-client');
    this.quick.addEventListener('click', () => {
      onChange(this.backend, { admin: this.backend.admin === 'ready' ? 'drain' : 'ready' });
    });
    this.more.addEventListener('click', () => onChange(this.backend, {}));
  }

  show(backend, rates, now) {
    this.backend = backend;
    const { health, admin } = stateOf(backend);
    put(this.name, backend.name);
    put(this.address, addressOf(backend));
    putBadge(this.health, ...health);
    putBadge(this.admin, ...admin);
    put(this.reason, reasonOf(backend, now));
    put(this.weight, count(backend.weight));
    const agent = agentOf(backend.agent);
    for (const cell of [this.reason, this.weight]) if (cell.title !== agent) cell.title = agent;
    put(this.sessions, count(backend.sessions));
    put(this.opened, rate(rates?.opened));
    put(this.toBackend, bytesRate(rates?.toBackend));
    put(this.toClient, bytesRate(rates?.toClient));
    const failing = (rates?.failures ?? 0) > 0;
    const failures = backend.dial_failures - (backend.cleared?.dial_failures ?? 0);
    put(this.failures, count(failures) + (failing ? ` (+${rate(rates.failures)}/s)` : ''));
    this.failures.title = backend.cleared ? `counted since ${clock(backend.cleared.since)}` : '';
    this.failures.classList.toggle('failing', failing);
    this.node.dataset.tone = backend.eligible ? 'ok' : admin[0] ? admin[1] : health[1];
    const word = backend.admin === 'ready' ? 'Drain' : 'Ready';
    if (put(this.quick, word)) this.quick.setAttribute('aria-label', `${word} ${backend.pool}/${backend.name}`);
    if (!this.more.ariaLabel) this.more.ariaLabel = `More changes of ${backend.pool}/${backend.name}`;
  }
}

function addressOf(backend) {
  const notes = [backend.address === backend.name ? '' : backend.address];
  if (backend.priority > 0) notes.push(`priority ${backend.priority}`);
  if (backend.source === 'api') notes.push('registered');
  if (backend.source === 'discovered') notes.push('discovered');
  if (backend.lease_left !== null) notes.push(`lease ${span(backend.lease_left)}`);
  return notes.filter(Boolean).join(' · ');
}

function reasonOf(backend, now) {
  const since = backend.health_since ? span((now - Date.parse(backend.health_since)) / 1000) : '';
  return [findingsOf(backend), since].filter(Boolean).join(' · ');
}

// Of several checks the last result of each, of a single one the result that has changed the health.
function findingsOf(backend) {
  if (backend.checks.length < 2) return backend.health_reason ?? '';
  const words = backend.checks.map(({ name, passed, reason }) => {
    if (passed === null) return `${name} not checked yet`;
    return passed ? `${name} passed` : `${name} failed: ${reason}`;
  });
  return words.join(', ');
}

function agentOf(agent) {
  if (!agent) return '';
  const limit = agent.maxconn === null ? '' : `maxconn:${agent.maxconn}`;
  const said = [agent.weight, limit, agent.admin, agent.health, agent.note].filter(Boolean).join(' ');
  const parts = [said && `agent says ${said}`, agent.mistake && `agent: ${agent.mistake}`, agent.lost && `agent lost: ${agent.lost}`];
  return parts.filter(Boolean).join('; ');
}

class Card {
  #rows = new Map();

  constructor(name, onChange) {
    this.node = copyOf('pool');
    this.onChange = onChange;
    const find = (selector) => this.node.querySelector(selector);
    for (const part of ['state', 'balance', 'eligible', 'sessions', 'opened', 'rows', 'none']) {
      this[part] = find(`.${part}`);
    }
    this.toBackend = find('.to-backend');
    this.toClient = find('.to-client');
    this.body = find('tbody');
    this.spark = find('.spark path');
    this.sources = new SourceList(find('.sources'));
    const title = find('h3');
    title.textContent = name;
    title.id = `pool-${name}`;
    this.node.setAttribute('aria-labelledby', title.id);
    this.rows.setAttribute('aria-label', `Backends of ${name}`);
    find('.sources').setAttribute('aria-label', `Sources of ${name}`);
    find('caption').textContent = `Backends of pool ${name}`;
    find('.spark').setAttribute('viewBox', `0 0 ${SPARK.width} ${SPARK.height}`);
  }

  showPool(pool, rates, now) {
    putBadge(this.state, ...stateOfPool(pool));
    put(this.balance, pool.balance);
    put(this.eligible, `${count(pool.eligible)} of ${count(pool.backends)}`);
    put(this.sessions, count(pool.sessions));
    put(this.opened, rate(rates?.opened));
    put(this.toBackend, bytesRate(rates?.toBackend));
    put(this.toClient, bytesRate(rates?.toClient));
    const points = rates?.points ?? [];
    if (points.length === 0) return;
    const seconds = spanOf(points);
    const most = Math.max(1, ...points.map((point) => point.opened));
    const x = (time) => SPARK.width * (1 - (now / 1000 - time) / seconds);
    const y = (value) => SPARK.height - 2 - (SPARK.height - 4) * (value / most);
    this.spark.setAttribute('d', line(points, 'opened', x, y));
  }

  // The rows of `backends`, in their order; those that are not wanted are hidden. Answers how many are shown.
  showBackends(backends, isWanted, history, now) {
    const gone = new Set(this.#rows.keys());
    let shown = 0;
    let place = this.body.firstElementChild;
    for (const backend of backends) {
      gone.delete(backend.name);
      let row = this.#rows.get(backend.name);
      if (!row) {
        row = new Row(this.onChange);
        this.#rows.set(backend.name, row);
      }
      const wanted = isWanted(backend);
      if (wanted) row.show(backend, history.backends.get(keyOf(backend)), now);
      if (row.node.hidden === wanted) row.node.hidden = !wanted;
      shown += wanted ? 1 : 0;
      if (row.node === place) place = place.nextElementSibling;
      else this.body.insertBefore(row.node, place);
    }
    for (const name of gone) {
      this.#rows.get(name).node.remove();
      this.#rows.delete(name);
    }
    const isLeftOut = backends.length === 0;
    put(this.none, isLeftOut ? 'Its backends are not shown: there are too many in all.' : 'No backend matches.');
    this.none.hidden = shown > 0;
    this.rows.hidden = shown === 0;
    this.rows.classList.toggle('long', shown > LONG);
    return shown;
  }
}

export class Pools {
  #cards = new Map();

  // `onChange(backend, wanted)` is called when the user wants to change a backend.
  constructor({ cards, shown, filter, troubled, onChange }) {
    Object.assign(this, { cards, shown, filter, troubled, onChange });
  }

  show(sample, history, sources) {
    const now = Date.parse(sample.time);
    const isWanted = this.#wanted();
    const byPool = new Map(sample.pools.map((pool) => [pool.name, []]));
    for (const backend of sample.backends) byPool.get(backend.pool).push(backend);
    for (const [name, card] of this.#cards) {
      if (!byPool.has(name)) {
        card.node.remove();
        this.#cards.delete(name);
      }
    }
    let shown = 0;
    for (const pool of sample.pools) {
      const card = this.#cards.get(pool.name) ?? this.#add(pool.name);
      card.showPool(pool, history.pools.get(pool.name), now);
      card.sources.show(sources, pool.name);
      shown += card.showBackends(byPool.get(pool.name), isWanted, history, now);
    }
    const all = sample.pools.reduce((sum, pool) => sum + pool.backends, 0);
    put(this.shown, shown === all ? plural(all, 'backend') : `${count(shown)} of ${plural(all, 'backend')}`);
  }

  #add(name) {
    const card = new Card(name, this.onChange);
    this.#cards.set(name, card);
    this.cards.append(card.node);
    return card;
  }

  // All words of the filter have to occur.
  #wanted() {
    const words = this.filter.value.toLowerCase().split(/\s+/).filter(Boolean);
    const only = this.troubled.checked;
    return (backend) => {
      if (only && backend.eligible) return false;
      if (words.length === 0) return true;
      const { health, admin } = stateOf(backend);
      const { pool, name, address } = backend;
      const text = `${pool}/${name} ${address} ${health[0]} ${admin[0] || 'ready'}`.toLowerCase();
      return words.every((word) => text.includes(word));
    };
  }
}
