// Asks a model on Anthropic's wire, which leads to models of every provider, and tells the reply as it comes.
import { organisation, Problem, signIn } from '../../lib/api';

export interface Turn {
  role: 'user' | 'assistant';
  content: string;
}

export interface Question {
  model: string;
  system: string;
  temperature: number | null;
  max_tokens: number;
  messages: Turn[];
}

export interface Heard {
  text(piece: string): void;
  thinking(piece: string): void;
  /** Tokens by class, each time the provider tells them. */
  usage(tokens: Record<string, number>): void;
  /** By which the account knows it. */
  id(request: string): void;
  end(reason: string): void;
}

interface Event {
  type: string;
  message?: { usage?: Record<string, number> };
  delta?: { text?: string; thinking?: string; stop_reason?: string | null };
  content_block?: { type?: string; name?: string };
  usage?: Record<string, number>;
  error?: { type?: string; message?: string };
}

/** Until the reply is there, or was stopped by `signal`. Throws a `Problem` with what the server says. */
export async function ask(question: Question, heard: Heard, signal: AbortSignal): Promise<void> {
  const { system, temperature, ...rest } = question;
  const headers: Record<string, string> = { 'content-type': 'application/json', 'anthropic-version': '2023-06-01', 'x-loom-tags': 'playground' };
  if (organisation.id) headers['x-loom-org'] = organisation.id;
  const response = await fetch('/v1/messages', {
    method: 'POST',
    headers,
    signal,
    body: JSON.stringify({ ...rest, stream: true, ...(system ? { system } : {}), ...(temperature === null ? {} : { temperature }) }),
  }).catch((error: unknown) => {
    if (signal.aborted) throw error;
    throw new Problem(0, 'offline', 'the server cannot be reached', null);
  });
  const request = response.headers.get('x-loom-request-id') ?? response.headers.get('x-request-id');
  if (request) heard.id(request);
  if (!response.ok || !response.body) {
    if (response.status === 401) signIn();
    const body = (await response.json().catch(() => ({}))) as { error?: { type?: string; message?: string }; detail?: string };
    const text = body.error?.message ?? body.detail ?? `the server answered ${response.status}`;
    throw new Problem(response.status, body.error?.type ?? 'http_error', text, request);
  }
  const reader = response.body.pipeThrough(new TextDecoderStream()).getReader();
  let left = '';
  for (;;) {
    const { value, done } = await reader.read();
    if (done) return;
    const events = (left + value).split(/\r?\n\r?\n/);
    left = events.pop() ?? '';
    for (const event of events) {
      const text = event.split(/\r?\n/).filter((line) => line.startsWith('data:')).map((line) => line.slice(5)).join('\n');
      if (text) tell(JSON.parse(text) as Event, heard, request);
    }
  }
}

function tell(event: Event, heard: Heard, request: string | null) {
  if (event.message?.usage) heard.usage(event.message.usage);
  if (event.usage) heard.usage(event.usage);
  if (event.delta?.text) heard.text(event.delta.text);
  if (event.delta?.thinking) heard.thinking(event.delta.thinking);
  if (event.delta?.stop_reason) heard.end(event.delta.stop_reason);
  if (event.type === 'error') {
    throw new Problem(502, event.error?.type ?? 'error', event.error?.message ?? 'the reply broke off', request);
  }
}
