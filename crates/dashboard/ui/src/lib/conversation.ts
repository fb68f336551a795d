// A conversation as it is read: what the providers write in their own shapes, in one; calls of tools with what came of them.
import type { Schemas } from './api';

export type Message = Schemas['Message'];

export type Part =
  | { kind: 'text'; text: string }
  | { kind: 'thinking'; text: string }
  | { kind: 'image'; data?: string; address?: string }
  | { kind: 'other'; name: string; text: string };

export interface Result { seq: number; parts: Part[]; failed: boolean; whole?: number }
export interface Call { id: string; name: string; input: string; result?: Result }

/** What is shown as one: a message, with the calls that it makes. */
export interface Item { message: Message; parts: Part[]; calls: Call[] }

type Json = Record<string, unknown>;

const isObject = (value: unknown): value is Json => typeof value === 'object' && value !== null && !Array.isArray(value);
const text = (value: unknown) => (typeof value === 'string' ? value : undefined);
const LONGEST = 2000;

/** JSON for people; data of a great length only says how long it is. */
export function pretty(value: unknown): string {
  if (typeof value === 'string') {
    try {
      return pretty(JSON.parse(value) as object);
    } catch {
      return value;
    }
  }
  return JSON.stringify(value, null, 2) ?? '';
}

function other(part: Json): Part {
  const short = (_: string, value: unknown) => (typeof value === 'string' && value.length > LONGEST ? `(${value.length} characters)` : value);
  return { kind: 'other', name: text(part['type']) ?? 'part', text: JSON.stringify(part, short, 2) };
}

function image(address: string | undefined): Part | undefined {
  if (!address) return undefined;
  // Only what is in the message itself is shown: an image from elsewhere would tell there who reads.
  if (/^data:image\/(png|jpeg|gif|webp);base64,/.test(address)) return { kind: 'image', data: address };
  return /^https?:\/\//.test(address) ? { kind: 'image', address } : undefined;
}

function part(value: unknown): Part | undefined {
  if (typeof value === 'string') return { kind: 'text', text: value };
  if (!isObject(value)) return undefined;
  switch (value['type']) {
    case 'text':
    case 'input_text':
    case 'output_text':
      return { kind: 'text', text: text(value['text']) ?? '' };
    case 'thinking':
    case 'reasoning':
      return { kind: 'thinking', text: text(value['thinking']) ?? text(value['text']) ?? '' };
    case 'image_url':
    case 'input_image': {
      const url = value['image_url'];
      return image(isObject(url) ? text(url['url']) : text(url)) ?? other(value);
    }
    case 'image': {
      const source = value['source'];
      if (!isObject(source)) return other(value);
      const inside = source['type'] === 'base64' ? `data:${text(source['media_type'])};base64,${text(source['data'])}` : text(source['url']);
      return image(inside) ?? other(value);
    }
    default:
      return other(value);
  }
}

function parts(content: unknown): Part[] {
  if (typeof content === 'string') return content ? [{ kind: 'text', text: content }] : [];
  if (!Array.isArray(content)) return [];
  return content.map(part).filter((one) => one !== undefined);
}

function call(value: Json, index: number): Call {
  const inner = isObject(value['function']) ? value['function'] : value;
  return {
    id: text(value['id']) ?? text(value['call_id']) ?? `call-${index}`,
    name: text(inner['name']) ?? 'tool',
    input: pretty(inner['arguments'] ?? inner['input'] ?? {}),
  };
}

const known = new WeakMap<Message, { item: Item; results: [string, Result][] }>();

/** Of one message alone; made once. */
function read(message: Message): { item: Item; results: [string, Result][] } {
  const before = known.get(message);
  if (before) return before;
  const content: unknown = message.content;
  const all: unknown[] = Array.isArray(content) ? content : [content];
  const typed = (type: string) => all.filter((one): one is Json => isObject(one) && one['type'] === type);
  const rest = all.filter((one) => !isObject(one) || (one['type'] !== 'tool_use' && one['type'] !== 'tool_result'));
  const item: Item = {
    message,
    parts: Array.isArray(content) ? parts(rest) : parts(content),
    calls: [...((message.tool_calls ?? []) as Json[]), ...typed('tool_use')].map(call),
  };
  const whole = message.content_truncated?.bytes;
  const results: [string, Result][] = typed('tool_result').map((one) => [
    text(one['tool_use_id']) ?? '',
    { seq: message.seq, parts: parts(one['content']), failed: one['is_error'] === true, whole },
  ]);
  if (message.role === 'tool' && message.tool_call_id) {
    results.push([message.tool_call_id, { seq: message.seq, parts: item.parts, failed: false, whole }]);
  }
  const made = { item, results };
  known.set(message, made);
  return made;
}

/** The messages in order, results beside the calls that they answer; a result that nobody asked for stands alone. */
export function conversation(messages: readonly Message[]): Item[] {
  const open = new Map<string, { at: number; call: number }>();
  const items: Item[] = [];
  for (const message of messages) {
    const { item, results } = read(message);
    let placed = 0;
    for (const [id, result] of results) {
      const asked = open.get(id);
      const owner = asked && items[asked.at];
      if (!asked || !owner) continue;
      open.delete(id);
      placed += 1;
      const calls = owner.calls.map((one, index) => (index === asked.call ? { ...one, result } : one));
      items[asked.at] = { ...owner, calls };
    }
    const says = message.role !== 'tool' && (item.parts.length > 0 || item.calls.length > 0);
    if (results.length > 0 && placed === results.length && !says) continue;
    const lonely = results.length > placed && item.parts.length === 0;
    items.push(lonely ? { ...item, parts: results.flatMap(([, result]) => result.parts) } : item);
    item.calls.forEach((one, index) => open.set(one.id, { at: items.length - 1, call: index }));
  }
  return items;
}

/** Is this the message of that number, or does it have its result? */
export function holds(item: Item, seq: number): boolean {
  return item.message.seq === seq || item.calls.some((one) => one.result?.seq === seq);
}

const STATES: Record<string, string> = {
  waiting_for_user_input: 'waits for its user',
  calling_llm: 'asks the model',
  processing_llm_response: 'reads the answer',
  executing_tools: 'runs tools',
  error: 'error',
  shutting_down: 'shuts down',
};
export const AGENT_STATES = Object.keys(STATES) as Schemas['AgentStateKind'][];

/** What an agent does, in words. */
export function doing(kind: string): string {
  return STATES[kind] ?? kind.replaceAll('_', ' ');
}

/** Does it work by itself now? */
export function works(kind: string): boolean {
  return kind === 'calling_llm' || kind === 'processing_llm_response' || kind === 'executing_tools';
}

/** Why it stopped, in words. */
export function failure(state: Schemas['AgentState']): string | null {
  if (!state.last_error) return null;
  return state.last_error === 'lost' ? 'The agent went away while it worked.' : state.last_error;
}
