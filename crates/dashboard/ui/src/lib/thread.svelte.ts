// One thread as it grows: read once, then only what is new, and what is being written piece by piece.
import { api, data, Problem, type Schemas } from './api';
import type { Message } from './conversation';
import { hear, type Told } from './live.svelte';

type Head = Omit<Schemas['Thread'], 'messages'>;
interface Delta { seq: number; id: string; offset: number; text: string }

const encoder = new TextEncoder();
const decoder = new TextDecoder();

/** Of a text and its pieces, which say where they begin in bytes: the text with the piece; null: something between is missing. */
export function grown(text: Uint8Array, offset: number, piece: string): Uint8Array | null {
  if (offset > text.length) return null;
  const more = encoder.encode(piece).subarray(text.length - offset);
  if (more.length === 0) return text;
  const all = new Uint8Array(text.length + more.length);
  all.set(text);
  all.set(more, text.length);
  return all;
}

/** Follows a thread for as long as the page is there. */
export function followThread(id: string) {
  let head = $state.raw<Head | undefined>();
  let messages = $state.raw<Message[]>([]);
  let problem = $state.raw<Problem | undefined>();
  let gone = $state('');
  let loading = $state(true);
  const writing = new Map<number, Uint8Array>();
  let pieces: Delta[] = [];
  let drawn = 0;
  // What is to be read again begins behind this one.
  let behind = Infinity;
  let reading: Promise<void> | null = null;

  async function read(after: number) {
    loading = true;
    try {
      const query = after > 0 ? { messages_after: after, outputs: 'preview' as const } : { outputs: 'preview' as const };
      const { messages: found, ...rest } = await data(api.GET('/api/threads/{id}', { params: { path: { id }, query } }));
      head = rest;
      messages = [...(after > 0 ? messages.filter((one) => one.seq <= after) : []), ...found.map(kept)];
      problem = undefined;
    } catch (error) {
      problem = error instanceof Problem ? error : new Problem(0, 'page_error', String(error), null);
    } finally {
      loading = false;
    }
  }

  /** What was heard of a text may be more than what is stored of it yet. */
  function kept(message: Message): Message {
    const heard = writing.get(message.seq);
    const stored: unknown = message.content;
    if (!heard || typeof stored !== 'string') return message;
    const text = decoder.decode(heard);
    if (text.length > stored.length && text.startsWith(stored) && !message.tool_calls) return { ...message, content: text as never };
    writing.delete(message.seq);
    return message;
  }

  function again(after: number) {
    behind = Math.min(behind, after);
    reading ??= (async () => {
      while (behind < Infinity) {
        const from = behind;
        behind = Infinity;
        await read(from);
      }
      reading = null;
    })();
    return reading;
  }

  function draw() {
    drawn = 0;
    const changed = new Map<number, Message>();
    for (const piece of pieces) {
      const before = changed.get(piece.seq) ?? messages.find((one) => one.seq === piece.seq);
      const content: unknown = before?.content;
      const known = writing.get(piece.seq) ?? encoder.encode(typeof content === 'string' ? content : '');
      const text = grown(known, piece.offset, piece.text);
      if (!text) {
        void again(piece.seq - 1);
        continue;
      }
      writing.set(piece.seq, text);
      const shown = before ?? { seq: piece.seq, id: piece.id, role: 'assistant', created_at: new Date().toISOString() };
      changed.set(piece.seq, { ...shown, content: decoder.decode(text) as never } as Message);
    }
    pieces = [];
    if (changed.size === 0) return;
    const rest = messages.filter((one) => !changed.has(one.seq));
    messages = [...rest, ...changed.values()].sort((one, other) => one.seq - other.seq);
  }

  function take(told: Told) {
    const said = JSON.parse(told.data);
    switch (told.event) {
      case 'delta':
        pieces.push(said as Delta);
        drawn ||= requestAnimationFrame(draw);
        break;
      case 'message':
        void again(said.removed ? 0 : Math.max(0, (said.from_seq ?? 1) - 1));
        break;
      case 'deleted':
        gone = said.reason === 'hidden' ? 'You may not see this thread any more.' : 'This thread was deleted.';
        break;
      case 'refused':
        gone = `It cannot be followed now: ${said.detail ?? 'the server says no'}.`;
        break;
      case 'reset':
        void again(0);
        break;
      case 'ready':
      case 'state':
      case 'updated':
      case 'visibility':
      case 'lagged':
        gone = '';
        if (head) void again(head.last_seq);
        else if (problem) void again(0);
        break;
    }
  }

  /** Puts the whole of a message in the place of its beginning. */
  async function whole(seq: number) {
    const message = await data(api.GET('/api/threads/{id}/messages/{seq}', { params: { path: { id, seq } } }));
    messages = messages.map((one) => (one.seq === seq ? message : one));
  }

  void again(0);
  $effect(() => hear(`/api/threads/${id}/events`, take));
  return {
    get value() {
      return head;
    },
    get messages() {
      return messages;
    },
    get problem() {
      return problem;
    },
    get loading() {
      return loading;
    },
    get gone() {
      return gone;
    },
    at: 0,
    whole,
    again: () => again(0),
  };
}
