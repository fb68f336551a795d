// What has just been done, or could not be, said in a corner of the page; some of it can be undone.
import { Problem } from './api';

export interface Note {
  id: number;
  text: string;
  bad: boolean;
  requestId: string | null;
  undo?: () => Promise<unknown>;
}

const STAYS = 8_000;
export const notes = $state<{ all: Note[] }>({ all: [] });
let made = 0;

function add(note: Omit<Note, 'id'>) {
  const id = ++made;
  notes.all = [...notes.all.slice(-3), { id, ...note }];
  // What went wrong stays until it is put away.
  if (!note.bad) setTimeout(() => drop(id), STAYS);
}

export function drop(id: number) {
  notes.all = notes.all.filter((note) => note.id !== id);
}

/** Says what was done, with a way back where there is one. */
export function say(text: string, undo?: () => Promise<unknown>) {
  add({ text, bad: false, requestId: null, undo });
}

/** Does it, and says so; says why when it cannot. True when it was done. */
export async function attempt(act: () => Promise<unknown>, done?: string, undo?: () => Promise<unknown>): Promise<boolean> {
  try {
    await act();
    if (done) say(done, undo);
    return true;
  } catch (error) {
    const problem = error instanceof Problem ? error : null;
    add({ text: problem?.message ?? String(error), bad: true, requestId: problem?.requestId ?? null });
    if (!problem) throw error;
    return false;
  }
}
