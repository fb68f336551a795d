// Puts a text where it can be pasted from; also where the address is not https, where browsers have no clipboard for pages.
import { Problem } from './api';

export async function copy(text: string): Promise<void> {
  if (navigator.clipboard) return navigator.clipboard.writeText(text);
  const before = document.activeElement as HTMLElement | null;
  const box = document.createElement('textarea');
  box.value = text;
  box.className = 'sr';
  // Nothing beside an open dialog can be chosen.
  (before?.closest('dialog') ?? document.body).append(box);
  box.select();
  const done = document.execCommand('copy');
  box.remove();
  before?.focus();
  if (!done) throw new Problem(0, 'no_clipboard', 'the browser does not let it be copied', null);
}
