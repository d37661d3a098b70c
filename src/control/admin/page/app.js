// The page: asks for the token, follows the samples, and has every part show them.

import { ask, follow, hasToken, keepToken, takeTokenFromAddress } from './api.js';
import { Change } from './change.js';
import { Chart } from './chart.js';
import { Events } from './events.js';
import { History } from './history.js';
import { Listeners } from './listeners.js';
import { Pools, stateOf, stateOfPool } from './pools.js';
import { refusalOf, showReload } from './reload.js';
import { Ended, Talkers } from './sessions.js';
import { Sources, stateOfSource } from './sources.js';
import { byId, bytes, bytesRate, clock, copyOf, count, latency, plural, put, putBadge, rate, span } from './words.js';

// Samples come every second. Times in milliseconds.
const SILENCE = 5_000;
const STATUS_PERIOD = 5_000;
// By then samples have as much to look back on as those that the process kept.
const LOOK_BACK = 12_000;
const SAID_FOR = 8_000;
// Problems listed one by one, and mistakes of a refused reload among them.
const PROBLEMS_MAX = 6;
const ERRORS_MAX = 5;

const STAGES = { serving: 'ok', draining: 'warn', stopping: 'bad' };

let history = new History();
let sample = null;
let status = null;
// Ends all that runs for this token.
let running = new AbortController();
let drawing = false;

const charts = [
  new Chart({ title: 'New sessions', series: [{ key: 'opened', label: '' }], format: (n) => `${rate(n)}/s`, least: 10 }),
  new Chart({
    title: 'Bytes, mean of 10 s',
    series: [{ key: 'toClient', label: 'to clients' }, { key: 'toBackend', label: 'to backends' }],
    format: bytesRate,
    least: 1000,
  }),
  new Chart({
    title: 'Connect time',
    series: [{ key: 'p50', label: 'p50' }, { key: 'p99', label: 'p99' }],
    format: latency,
    least: 0.0005,
  }),
  new Chart({ title: 'Active sessions', series: [{ key: 'sessions', label: '' }], format: (n) => (n === null ? '–' : count(n)), least: 10 }),
];
const tiles = ['Active sessions', 'New sessions', 'To clients', 'To backends', 'Dial failures', 'Eligible backends'].map(tile);
const change = new Change(say);
const events = new Events(byId('events'), byId('events-note'), onEvent);
const listeners = new Listeners();
const talkers = new Talkers();
const ended = new Ended();
const sources = new Sources(() => drawSoon());
const pools = new Pools({
  cards: byId('pool-cards'),
  shown: byId('shown'),
  filter: byId('filter'),
  troubled: byId('troubled'),
  onChange: (backend, wanted) => change.open(backend, wanted),
});

function tile(title) {
  const node = copyOf('tile');
  const [value, sub] = node.querySelectorAll('dd');
  put(node.querySelector('dt'), title);
  byId('tiles').append(node);
  return { node, value, sub };
}

// --- coming in ------------------------------------------------------------------------------------------------------

function askForToken(words) {
  running.abort();
  keepToken(null);
  byId('dashboard').hidden = true;
  byId('facts').hidden = true;
  byId('stage').hidden = true;
  byId('forget').hidden = true;
  byId('entrance').hidden = false;
  showLink('none', '');
  put(byId('token-error'), words);
  byId('token').value = '';
  byId('token').focus();
}

function comeIn() {
  running.abort();
  running = new AbortController();
  const { signal } = running;
  byId('entrance').hidden = true;
  showLink('lost', 'connecting');
  const on = {
    silence: SILENCE,
    open: () => {
      refresh(signal);
      lookBack(signal);
      setTimeout(() => signal.aborted || lookBack(signal), LOOK_BACK);
    },
    message: (name, data) => {
      if (name === 'sample') onSample(JSON.parse(data));
    },
    lost: (wait, error) => {
      const why = error?.status ? ` (${error.message})` : '';
      showLink('lost', `no connection${why}, again in ${span(Math.ceil(wait / 1000))}`);
    },
    refused: () => askForToken('l4lb does not know this token.'),
  };
  follow('v1/samples/stream', on, signal);
  events.follow(signal);
  const timer = setInterval(() => refresh(signal), STATUS_PERIOD);
  signal.addEventListener('abort', () => clearInterval(timer), { once: true });
}

// What happened before, or while there was no connection.
async function lookBack(signal) {
  const past = await ask('GET', 'v1/history').catch(() => null);
  if (!past || signal.aborted) return;
  history.fill(past);
  listeners.fill(history.listeners);
  events.add(past.events);
  drawSoon();
}

// What is not in a sample. While there is no connection the streams say so, and this says nothing.
async function refresh(signal) {
  sources.refresh(signal);
  listeners.refresh(signal, sample && Date.parse(sample.time) / 1000);
  talkers.refresh(signal);
  const answer = await ask('GET', 'v1/status').catch(() => null);
  if (!answer || signal.aborted) return;
  const isAnother = status && status.started !== answer.started;
  status = answer;
  // Buttons that the token does not permit would only disappoint.
  document.body.dataset.access = status.may_change ? 'full' : 'read';
  putBadge(byId('rights'), status.may_change ? '' : 'read-only', 'off');
  if (isAnother) {
    // Its totals begin anew, and so do its events.
    history = new History();
    events.clear();
    sources.clear();
    listeners.clear();
    return comeIn();
  }
  drawSoon();
}

function onEvent(event) {
  if (event.kind === 'reload') refresh(running.signal);
  if (event.kind === 'backend') sources.refreshSoon(running.signal);
  if (event.kind === 'eligibility') say(`${event.pool}: ${event.message}`);
}

function onSample(now) {
  sample = now;
  history.add(now);
  showLink('live', 'live');
  byId('dashboard').hidden = false;
  byId('forget').hidden = !hasToken();
  drawSoon();
}

// --- showing --------------------------------------------------------------------------------------------------------

// Once a frame at most, and never while the page is hidden.
function drawSoon() {
  if (drawing) return;
  drawing = true;
  requestAnimationFrame(() => {
    drawing = false;
    if (sample) draw();
  });
}

function draw() {
  showHeader();
  showTiles();
  showProblems();
  charts.forEach((chart) => chart.draw(history.points));
  pools.show(sample, history, sources);
  change.show(sample);
  ended.show(history.ended(), sample.totals.closed);
  if (status) showReload(status.reload);
}

function showLink(state, words) {
  document.body.dataset.link = state;
  put(byId('link'), words);
  change.link(state === 'live');
}

function showHeader() {
  putBadge(byId('stage'), sample.stage, STAGES[sample.stage]);
  byId('facts').hidden = !status;
  if (!status) return;
  put(byId('version'), status.version);
  put(byId('uptime'), span((Date.parse(sample.time) - Date.parse(status.started)) / 1000));
  put(byId('epoch'), count(sample.epoch));
  put(byId('workers'), count(status.workers.length));
  const { succeeded, failed, reading_since: reading } = status.reload;
  put(byId('reloads'), failed > 0 ? `${count(succeeded)}, ${count(failed)} refused` : count(succeeded));
  byId('reloads').title = reading ? `reading since ${clock(reading)}` : '';
}

function showTiles() {
  const { totals, cleared } = sample;
  // An operator's `l4lb ctl counters clear` moves the start of what is shown, and nothing else.
  const total = (counter) => totals[counter] - (cleared?.totals[counter] ?? 0);
  const counted = cleared ? `since ${clock(cleared.since)}` : 'in all';
  const now = history.points.at(-1);
  const eligible = sample.pools.reduce((sum, pool) => sum + pool.eligible, 0);
  const all = sample.pools.reduce((sum, pool) => sum + pool.backends, 0);
  const since = `${count(total('accepted'))} ${counted}`;
  const show = ([tile, value, sub, tone = '']) => {
    put(tile.value, value);
    put(tile.sub, sub);
    if (tile.node.dataset.tone !== tone) tile.node.dataset.tone = tone;
  };
  const failing = now.failures > 0;
  [
    [tiles[0], count(totals.sessions), `on ${plural(sample.pools.length, 'pool')}`],
    [tiles[1], `${rate(now.opened)}/s`, since],
    [tiles[2], bytesRate(now.toClient), `${bytes(total('to_client'))} ${counted}`],
    [tiles[3], bytesRate(now.toBackend), `${bytes(total('to_backend'))} ${counted}`],
    [tiles[4], `${rate(now.failures)}/s`, `${count(total('dial_failures'))} of ${plural(total('dials'), 'dial')}`, failing ? 'bad' : ''],
    [tiles[5], count(eligible), [`of ${count(all)}`, outOfService()].filter(Boolean).join(': '), eligible === 0 ? 'bad' : eligible < all ? 'warn' : ''],
  ].forEach(show);
  const worst = sample.pools.some((pool) => pool.eligible === 0) ? '✖ ' : eligible < all ? '! ' : '';
  document.title = `${worst}${eligible}/${all} l4lb`;
}

// How many are not serving, by what keeps them from it: "1 down, 2 drain".
function outOfService() {
  const counts = new Map();
  for (const backend of sample.backends) {
    const { health, admin } = stateOf(backend);
    const why = admin[0] || health[0];
    if (!backend.eligible) counts.set(why, (counts.get(why) ?? 0) + 1);
  }
  return [...counts].map(([why, n]) => `${count(n)} ${why}`).join(', ');
}

// The requester that has set it so, and since when.
function keptOut(backend) {
  const by = backend.admin_by ? ` by ${backend.admin_by}` : '';
  return backend.admin_since ? `${by} since ${clock(backend.admin_since)}` : by;
}

// The address or the priority that an operator has set, and what it was before.
function placed({ address, priority, placed: { address_before, priority_before, by, since } }) {
  const set = [];
  if (address_before) set.push(`address ${address} in place of ${address_before}`);
  if (typeof priority_before === 'number') set.push(`priority ${priority} in place of ${priority_before}`);
  return `${set.join(', ')}, set by ${by} since ${clock(since)}`;
}

function problems() {
  const found = [];
  const tell = (tone, title, words, refusal) => found.push({ tone, title, words, refusal });
  if (sample.stage !== 'serving') {
    tell(STAGES[sample.stage], sample.stage, `no new sessions; ${plural(sample.totals.sessions, 'session')} left`);
  }
  if (sample.stage === 'serving' && status?.not_ready) tell('bad', 'not ready', status.not_ready);
  for (const listener of listeners.all) {
    if (listener.paused) tell('warn', listener.name, `paused${listener.paused_by ? ` by ${listener.paused_by}` : ''}: clients are refused`);
  }
  for (const pool of sample.pools) {
    if (stateOfPool(pool)[1] === 'bad') tell('bad', pool.name, 'no backend is eligible');
  }
  const refusal = status && refusalOf(status.reload);
  if (refusal) {
    const { errors } = status.reload;
    const more = errors.length > ERRORS_MAX ? `\nand ${count(errors.length - ERRORS_MAX)} more, see below` : '';
    tell('bad', `reload refused at ${clock(refusal.time)}`, `${errors.slice(0, ERRORS_MAX).join('\n')}${more}`, refusal.number);
  }
  if (status?.reload.reading_since) {
    const took = (Date.parse(sample.time) - Date.parse(status.reload.reading_since)) / 1000;
    if (took > 1) tell('warn', 'reload', `reading the configuration for ${span(took)}`);
  }
  if (status?.restart_pending) {
    const { keys, since, changes } = status.restart_pending;
    tell('warn', 'restart pending', `${keys.join(', ')} (since ${clock(since)}, ${plural(keys.length, 'key')})\n${changes.join('\n')}`);
  }
  for (const backend of sample.backends) {
    const { health } = stateOf(backend);
    if (health[1] === 'bad') tell('bad', `${backend.pool} / ${backend.name}`, `${health[0]}: ${backend.health_reason ?? 'set by an operator'}`);
  }
  for (const backend of sample.backends) {
    if (backend.admin !== 'ready') tell('warn', `${backend.pool} / ${backend.name}`, `in ${backend.admin}${keptOut(backend)}, ${plural(backend.sessions, 'session')} left`);
  }
  for (const backend of sample.backends) {
    if (backend.placed) tell('off', `${backend.pool} / ${backend.name}`, placed(backend));
  }
  for (const source of sources.all) {
    const [words, tone] = stateOfSource(source);
    const why = source.note ? `: ${source.note}` : '';
    if (tone === 'bad' || tone === 'warn') tell(tone, `${source.pool} / ${source.source}`, `${words}, since ${clock(source.since)}${why}`);
  }
  if (status?.log_lines_dropped > 0) tell('warn', 'log', `${plural(status.log_lines_dropped, 'line')} dropped: its reader is too slow`);
  const all = sample.pools.reduce((sum, pool) => sum + pool.backends, 0);
  if (sample.backends.length < all) {
    tell('off', 'backends', `the first ${count(sample.backends.length)} of ${count(all)} are shown, and rates of pools are theirs`);
  }
  return found;
}

function showProblems() {
  const found = problems();
  const more = found.length - PROBLEMS_MAX;
  const shown = found.slice(0, PROBLEMS_MAX);
  if (more > 0) shown.push({ tone: 'off', title: `${count(more)} more`, words: 'see below' });
  if (found.length === 0) {
    const eligible = sample.pools.reduce((sum, pool) => sum + pool.eligible, 0);
    const of = `${plural(eligible, 'backend')} of ${plural(sample.pools.length, 'pool')}`;
    shown.push({ tone: 'ok', title: 'All is well', words: `${of} may have new sessions` });
  }
  const text = JSON.stringify(shown);
  const list = byId('problems');
  if (list.shown === text) return;
  list.shown = text;
  list.replaceChildren(
    ...shown.map(({ tone, title, words, refusal }) => {
      const node = document.createElement('li');
      node.dataset.tone = tone;
      const strong = document.createElement('b');
      strong.textContent = title;
      node.append(strong, ` ${words}`);
      if (refusal) node.append(dismissal(refusal));
      return node;
    }),
  );
}

// The button that dismisses a refused reload.
function dismissal(number) {
  const button = document.createElement('button');
  button.type = 'button';
  button.className = 'dismiss';
  button.textContent = 'Dismiss';
  button.setAttribute('aria-label', 'Dismiss the refused reload');
  button.addEventListener('click', async () => {
    const { signal } = running;
    try {
      await ask('DELETE', `v1/config/refusals/${number}`);
      say('The refused reload is dismissed, on every page.');
      byId('problems').focus();
    } catch (error) {
      say(`Not dismissed: ${error.message}`);
    }
    refresh(signal);
  });
  return button;
}

// Announces changes as text, for screen readers.
function say(words) {
  const said = byId('said');
  said.textContent = words;
  said.classList.add('shown');
  clearTimeout(said.timer);
  said.timer = setTimeout(() => said.classList.remove('shown'), SAID_FOR);
}

// --- what people do -------------------------------------------------------------------------------------------------

function onKey(event) {
  const typing = event.target.closest('input, select, textarea, dialog');
  if (event.key !== '/' || typing || event.ctrlKey || event.metaKey || event.altKey) return;
  event.preventDefault();
  byId('filter').focus();
}

// On a phone the pools come first, behind what is wrong; for a screen reader and the keyboard too.
function arrange(isPhone) {
  const [parts, now, found, cards] = ['parts', 'now', 'found', 'pools'].map(byId);
  if (isPhone) parts.prepend(found, cards);
  else parts.prepend(now, found, byId('charts').parentElement, cards);
}

const phone = matchMedia('(max-width: 720px)');
phone.addEventListener('change', () => arrange(phone.matches));
arrange(phone.matches);
talkers.listen(() => running.signal);

charts.forEach((chart) => {
  byId('charts').append(chart.figure);
  chart.onMark = (time) => charts.forEach((each) => each.markAt(time));
});
byId('filter').addEventListener('input', drawSoon);
byId('troubled').addEventListener('change', drawSoon);
byId('forget').addEventListener('click', () => askForToken(''));
byId('token-form').addEventListener('submit', (event) => {
  event.preventDefault();
  keepToken(byId('token').value.trim());
  comeIn();
});
addEventListener('keydown', onKey);
addEventListener('hashchange', () => takeTokenFromAddress() && comeIn());

takeTokenFromAddress();
if (hasToken()) comeIn();
else askForToken('');
