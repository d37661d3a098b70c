// The last reload: what it has changed, when, and by whom; or what was wrong with it.

import { byId, clock, count, plural, put, putBadge } from './words.js';

// Lines of a card; more are in the log.
const SHOWN_MAX = 20;

// The refused reload that is still to be shown; null if there is none.
export const refusalOf = (reload) => (reload.refused && !reload.refused.dismissed_by ? reload.refused : null);

export function showReload(reload) {
  const { applied, refused, errors } = reload;
  const changes = byId('reload-changes');
  const list = (lines, all) => {
    const more = all - Math.min(lines.length, SHOWN_MAX);
    const shown = [...lines.slice(0, SHOWN_MAX), ...(more > 0 ? [`and ${count(more)} more: the log has all`] : [])];
    if (!put(changes, shown.join('\n'))) return;
    changes.replaceChildren(
      ...shown.map((text) => {
        const node = document.createElement('li');
        node.textContent = text;
        return node;
      }),
    );
  };
  if (refused) {
    putBadge(byId('reload-state'), refused.dismissed_by ? 'refused, dismissed' : 'refused', refused.dismissed_by ? 'off' : 'bad');
    const dismissed = refused.dismissed_by ? `; dismissed by ${refused.dismissed_by}` : '';
    put(byId('reload-words'), `at ${clock(refused.time)} by ${refused.who}${dismissed}. What ran before still runs.`);
    return list(errors, errors.length);
  }
  if (!applied) {
    putBadge(byId('reload-state'), '', 'off');
    put(byId('reload-words'), 'None since the start.');
    return list([], 0);
  }
  putBadge(byId('reload-state'), 'applied', 'ok');
  const what = applied.count === 0 ? 'nothing had changed' : plural(applied.count, 'change');
  put(byId('reload-words'), `at ${clock(applied.time)} by ${applied.who}: ${what}, epoch ${count(applied.epoch)}`);
  const words = ({ what, sessions, needs_restart: later }) =>
    [what, sessions > 0 && `(${plural(sessions, 'session')})`, later && '(after a restart)'].filter(Boolean).join(' ');
  return list(applied.changes.map(words), applied.count);
}
