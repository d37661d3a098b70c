// The dialog that changes a backend: says what will come of it before it is done, and what has come of it.

import { ask } from './api.js';
import { stateOf } from './pools.js';
import { byId, plural, put } from './words.js';

const WEIGHT_MAX = 256;

export class Change {
  // `say(words, isError)` announces the result.
  constructor(say) {
    this.say = say;
    this.dialog = byId('change');
    this.form = byId('change-form');
    this.apply = byId('change-apply');
    this.form.addEventListener('input', () => this.#tell());
    this.form.addEventListener('submit', (event) => {
      event.preventDefault();
      this.#send();
    });
    byId('change-cancel').addEventListener('click', () => this.dialog.close());
    this.dialog.addEventListener('close', () => (this.backend = null));
    this.backend = null;
    this.lost = false;
  }

  // Opens it for that backend, with what is `wanted` filled in.
  open(backend, wanted) {
    const { admin, health, weight } = this.form.elements;
    this.busy = false;
    this.gone = false;
    this.before = { admin: backend.admin, health: overrideOf(backend), weight: backend.weight };
    admin.value = wanted.admin ?? backend.admin;
    health.value = this.before.health;
    weight.value = backend.weight;
    put(byId('change-title'), `${backend.pool} / ${backend.name}`);
    put(byId('change-error'), '');
    this.backend = backend;
    this.#tell();
    this.dialog.showModal();
    (wanted.admin ? this.apply : this.form.querySelector('[name=admin]:checked')).focus();
  }

  // What is known now, while it is open.
  show(sample) {
    this.stage = sample.stage;
    this.pools = sample.pools;
    if (!this.backend) return;
    const same = ({ pool, name }) => pool === this.backend.pool && name === this.backend.name;
    const now = sample.backends.find(same);
    this.gone = !now;
    if (now) this.backend = now;
    this.#tell();
  }

  // Whether the API can be reached at all.
  link(there) {
    this.lost = !there;
    if (this.backend) this.#tell();
  }

  #wanted() {
    const { admin, health, weight } = this.form.elements;
    const number = weight.value.trim() === '' ? NaN : Number(weight.value);
    return { admin: admin.value, health: health.value, weight: number };
  }

  // Why it cannot be applied; null if it can.
  #obstacle(wanted) {
    if (this.busy) return 'It is being done.';
    if (this.lost) return 'There is no connection to l4lb.';
    if (this.gone) return 'This backend is not there any more.';
    if (this.stage === 'stopping') return 'The process is stopping.';
    const { weight } = wanted;
    if (!Number.isInteger(weight) || weight < 0 || weight > WEIGHT_MAX) return `The weight must be 0 to ${WEIGHT_MAX}.`;
    const same = Object.keys(wanted).every((key) => wanted[key] === this.before[key]);
    return same ? 'Nothing is changed yet.' : null;
  }

  // Says what would come of it. A button that does nothing stays in reach and says why.
  #tell() {
    const { backend } = this;
    const { health, admin } = stateOf(backend);
    const state = [admin[0] || 'ready', health[0], `weight ${backend.weight}`, plural(backend.sessions, 'session')];
    put(byId('change-now'), `${backend.address} is now: ${state.join(', ')}`);
    const wanted = this.#wanted();
    const obstacle = this.#obstacle(wanted);
    const { words, grave } = obstacle ? { words: obstacle, grave: false } : this.#effect(wanted);
    const effect = byId('change-effect');
    put(effect, words);
    effect.classList.toggle('grave', grave);
    this.apply.setAttribute('aria-disabled', String(obstacle !== null));
    this.apply.classList.toggle('grave', grave);
    put(this.apply, grave ? 'Apply all the same' : 'Apply');
  }

  #effect(wanted) {
    const { backend } = this;
    const pool = this.pools.find(({ name }) => name === backend.pool);
    const others = pool.eligible - (backend.eligible ? 1 : 0);
    const healthy = wanted.health === 'auto' ? this.before.health !== 'auto' || backend.health !== 'down' : wanted.health === 'up';
    const serves = wanted.admin === 'ready' && wanted.weight > 0 && healthy;
    if (serves) return { words: backend.eligible ? 'It goes on serving.' : 'It may have new sessions again.', grave: false };
    const left = backend.sessions > 0 ? ` Its ${plural(backend.sessions, 'session')} may finish.` : '';
    if (others === 0 && backend.eligible) {
      const words = `It is the last one of pool ${backend.pool} that may have new sessions: new clients would find none.${left}`;
      return { words, grave: true };
    }
    const rest = others === 0 ? 'none of this pool is' : `${others} of this pool ${others === 1 ? 'is' : 'are'}`;
    return { words: `It gets no new sessions; ${rest} left to serve.${left}`, grave: false };
  }

  async #send() {
    const wanted = this.#wanted();
    if (this.#obstacle(wanted)) return;
    const { pool, name } = this.backend;
    const { before } = this;
    const path = `v1/pools/${encodeURIComponent(pool)}/backends/${encodeURIComponent(name)}`;
    this.busy = true;
    this.#tell();
    try {
      const change = {};
      if (wanted.weight !== before.weight) change.weight = wanted.weight;
      if (wanted.admin !== before.admin) change.admin = wanted.admin;
      let answer = null;
      if (Object.keys(change).length > 0) answer = await ask('PATCH', path, change);
      // A part that is done is not done again should the other be refused.
      Object.assign(before, change);
      if (wanted.health !== before.health) answer = await ask('POST', `${path}/health`, { health: wanted.health });
      this.dialog.close();
      this.say(told(answer), false);
    } catch (error) {
      put(byId('change-error'), `Refused: ${error.message}`);
    } finally {
      this.busy = false;
      if (this.backend) this.#tell();
    }
  }
}

const overrideOf = (backend) => (backend.health_override ? backend.health : 'auto');

// A backend as the API has answered after a change.
function told(backend) {
  const { health, admin } = stateOf(backend);
  const state = [admin[0] || 'ready', health[0], `weight ${backend.weight}`];
  return `${backend.pool}/${backend.name} is now: ${state.join(', ')}; ${plural(backend.sessions, 'session')}.`;
}
