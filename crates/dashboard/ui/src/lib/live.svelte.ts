// What happens on the server, over one connection for the whole tab: pages say which streams they want, and
// the connection is made anew when that changes. Each stream goes on where it was.

import { addressOf, api } from './api';

export interface Told {
  of: string;
  event: string;
  data: string;
}

type Listener = (told: Told) => void;

export const live = $state<{ state: 'idle' | 'connecting' | 'open' | 'offline'; heardAt: number }>({
  state: 'idle',
  heardAt: Date.now(),
});

const listeners = new Map<string, Set<Listener>>();
let source: EventSource | null = null;
let wanted = '';
let lastId = '';
let retry: ReturnType<typeof setTimeout> | undefined;
let pause = 500;

/** Hears a stream; what it gives stops that. For effects: `$effect(() => hear(…))`. */
export function hear(of: string, listener: Listener): () => void {
  const those = listeners.get(of) ?? new Set();
  listeners.set(of, those.add(listener));
  queueMicrotask(connect);
  return () => {
    those.delete(listener);
    if (those.size === 0 && listeners.get(of) === those) {
      listeners.delete(of);
      // Whoever hears it again begins anew.
      const places = new URLSearchParams(lastId);
      places.delete(of);
      lastId = places.toString();
    }
    queueMicrotask(connect);
  };
}

function connect() {
  const query = [...listeners.keys()].sort().map((of) => `of=${encodeURIComponent(of)}`).join('&');
  if (query === wanted && source) return;
  wanted = query;
  open();
}

function open() {
  clearTimeout(retry);
  source?.close();
  source = null;
  if (!wanted) {
    live.state = 'idle';
    return;
  }
  live.state = live.state === 'offline' ? 'offline' : 'connecting';
  const after = lastId ? `&last_event_id=${encodeURIComponent(lastId)}` : '';
  const opened = new EventSource(addressOf(`/api/live?${wanted}${after}`));
  source = opened;
  const over = new Map<string, number>();
  opened.onopen = () => {
    live.state = 'open';
    live.heardAt = Date.now();
    pause = 500;
  };
  opened.onmessage = (message) => {
    live.heardAt = Date.now();
    lastId = message.lastEventId;
    const told = JSON.parse(message.data) as Told;
    listeners.get(told.of)?.forEach((listener) => listener(told));
    const ended = told.event === 'end' && told.data === '{}';
    if (ended || told.event === 'refused') over.set(told.of, ended ? 2_000 : 30_000);
    // A stream lasts an hour; it is asked for again if it is still wanted then.
    if (ended) setTimeout(() => { if (listeners.has(told.of) && source === opened) open(); }, 2_000);
  };
  opened.onerror = () => {
    opened.close();
    if (source !== opened) return;
    if ([...listeners.keys()].some((of) => !over.has(of))) {
      lost();
      return;
    }
    // The server has no more to tell now: of a thing, say, that there is not.
    source = null;
    live.state = 'idle';
    retry = setTimeout(open, Math.min(...over.values()));
  };
}

/** Tries again by itself: the browser's own waiting is too long for a restart, and none after a refusal. */
function lost() {
  source?.close();
  source = null;
  if (live.state === 'open') live.heardAt = Date.now();
  // A refusal tells a page nothing, and may be of a session that has ended: this one leads to the sign-in then.
  else void api.GET('/auth/me').catch(() => undefined);
  live.state = 'offline';
  clearTimeout(retry);
  retry = setTimeout(open, pause);
  pause = Math.min(pause * 2, 5_000);
}

window.addEventListener('offline', () => {
  if (source) lost();
});
window.addEventListener('online', () => {
  if (live.state === 'offline') open();
});
