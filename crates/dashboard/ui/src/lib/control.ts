// Controls that change something at once: until that is done they go on showing what is so.

/** What was chosen; the control shows what was there before. */
export function chosen(control: HTMLSelectElement, before: string): string {
  const to = control.value;
  control.value = before;
  return to;
}

/** Whether it was ticked; the box shows what was there before. */
export function ticked(box: HTMLInputElement): boolean {
  const on = box.checked;
  box.checked = !on;
  return on;
}
