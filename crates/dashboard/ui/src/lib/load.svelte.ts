// What a page shows of the server: loaded, loaded again, and how old it is.
import { Problem } from './api';

export interface Loaded<T> {
  readonly value: T | undefined;
  readonly problem: Problem | undefined;
  readonly loading: boolean;
  /** When it was loaded, in milliseconds. */
  readonly at: number;
  again(): Promise<void>;
}

/** How soon what could not reach the server asks again, in milliseconds. */
const RETRY = 3_000;

/** Loads now, and again whenever what `ask` reads has changed. The last good value stays while it fails. */
export function load<T>(ask: () => Promise<T>): Loaded<T> {
  const state = $state<{ value?: T; problem?: Problem; loading: boolean; at: number }>({ loading: true, at: 0 });
  let asked = 0;
  let retry: ReturnType<typeof setTimeout> | undefined;
  async function again() {
    clearTimeout(retry);
    const mine = ++asked;
    state.loading = true;
    try {
      const value = await ask();
      if (mine !== asked) return;
      state.value = value;
      state.problem = undefined;
      state.at = Date.now();
    } catch (error) {
      if (mine !== asked) return;
      state.problem = error instanceof Problem ? error : new Problem(0, 'page_error', String(error), null);
      if (state.problem.code === 'offline') retry = setTimeout(() => void again(), RETRY);
    } finally {
      if (mine === asked) state.loading = false;
    }
  }
  $effect(() => {
    void again();
    return () => {
      asked += 1;
      clearTimeout(retry);
    };
  });
  return {
    get value() {
      return state.value;
    },
    get problem() {
      return state.problem;
    },
    get loading() {
      return state.loading;
    },
    get at() {
      return state.at;
    },
    again,
  };
}

/** Calls at once, and then once in a while however many reasons there are: what goes on all the time keeps nothing back. */
export function soon(act: () => void, wait = 300): () => void {
  let timer: ReturnType<typeof setTimeout> | undefined;
  let last = 0;
  return () => {
    timer ??= setTimeout(() => {
      timer = undefined;
      last = Date.now();
      act();
    }, Math.max(0, last + wait - Date.now()));
  };
}
