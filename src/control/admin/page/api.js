// Talks to the API: shows the token, asks, follows streams. Knows nothing of the page.

const KEY = 'l4lb-token';
// Times in milliseconds.
const WAIT_FIRST = 500;
const WAIT_MAX = 15_000;
const ANSWER_MAX = 25_000;

// A storage that the browser denies is no reason to show nothing: then a reload asks for the token again.
let token = null;
try {
  token = sessionStorage.getItem(KEY);
} catch {
  token = null;
}

export const hasToken = () => token !== null;

export function keepToken(given) {
  token = given;
  try {
    if (given === null) sessionStorage.removeItem(KEY);
    else sessionStorage.setItem(KEY, given);
  } catch {
    // Kept in `token` alone.
  }
}

// Takes the token of an address that ends in #token=TOKEN, and removes it from the address, so that it is not copied along.
export function takeTokenFromAddress() {
  const given = new URLSearchParams(location.hash.slice(1)).get('token');
  if (given === null) return false;
  history.replaceState(null, '', location.pathname);
  keepToken(given);
  return true;
}

// What the API has answered instead of what was wanted.
export class Refused extends Error {
  constructor(status, words) {
    super(words);
    this.status = status;
  }
}

async function call(path, options) {
  // A tunnel to the unix socket needs none.
  const headers = token ? { ...options.headers, Authorization: `Bearer ${token}` } : options.headers;
  const answer = await fetch(path, { ...options, headers, cache: 'no-store', credentials: 'omit' });
  if (answer.ok) return answer;
  const problem = await answer.json().catch(() => null);
  throw new Refused(answer.status, problem?.error ?? `${answer.status} ${answer.statusText}`);
}

// The JSON that the API gives for a request.
export async function ask(method, path, body) {
  const options = { method, headers: {}, signal: AbortSignal.timeout(ANSWER_MAX) };
  if (body !== undefined) {
    options.headers['Content-Type'] = 'application/json';
    options.body = JSON.stringify(body);
  }
  return (await call(path, options)).json();
}

// Calls `on.message(name, data)` for each event of a stream until `signal` is aborted, however often the stream ends.
// `on.silence` milliseconds without a byte end it. `on.open()` reports that it is there, `on.lost(ms, error)` that it is
// not and is tried again in so many milliseconds, `on.refused(error)` that it never will be with this token.
export async function follow(path, on, signal) {
  for (let failures = 0; !signal.aborted; failures += 1) {
    let error = null;
    try {
      await read(path, on, signal, () => (failures = 0));
    } catch (caught) {
      error = caught;
    }
    if (signal.aborted) return;
    if (error?.status === 401 || error?.status === 403) return on.refused(error);
    // Streams end after some minutes: only the second time in a row is a failure.
    if (!error && failures === 0) continue;
    const wait = Math.min(WAIT_MAX, WAIT_FIRST * 2 ** failures) * (0.75 + Math.random() / 2);
    on.lost(wait, error);
    await pause(wait, signal);
  }
}

async function read(path, on, signal, onMessage) {
  const silent = new AbortController();
  let timer = setTimeout(() => silent.abort(), on.silence);
  try {
    const answer = await call(path, { signal: AbortSignal.any([signal, silent.signal]) });
    on.open();
    const lines = new Lines((name, data) => {
      onMessage();
      on.message(name, data);
    });
    const reader = answer.body.pipeThrough(new TextDecoderStream()).getReader();
    for (;;) {
      const { done, value } = await reader.read();
      if (done) return;
      clearTimeout(timer);
      timer = setTimeout(() => silent.abort(), on.silence);
      lines.take(value);
    }
  } finally {
    clearTimeout(timer);
  }
}

const pause = (ms, signal) =>
  new Promise((resolve) => {
    const timer = setTimeout(resolve, ms);
    signal.addEventListener('abort', () => resolve(clearTimeout(timer)), { once: true });
  });

// Server-sent events out of text that comes in any pieces.
class Lines {
  #rest = '';
  #name = 'message';
  #data = [];

  constructor(onMessage) {
    this.onMessage = onMessage;
  }

  take(text) {
    const lines = (this.#rest + text).split('\n');
    this.#rest = lines.pop();
    lines.forEach((line) => this.#line(line.replace(/\r$/, '')));
  }

  #line(line) {
    if (line === '') {
      if (this.#data.length > 0) this.onMessage(this.#name, this.#data.join('\n'));
      this.#name = 'message';
      this.#data = [];
      return;
    }
    const [, key, value] = /^([^:]*):? ?(.*)$/.exec(line);
    if (key === 'event') this.#name = value;
    else if (key === 'data') this.#data.push(value);
  }
}
