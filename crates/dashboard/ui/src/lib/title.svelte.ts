// The name of the window, or of its tab, by what it shows.

/** For a page of one thing, as soon as its name is known; until then the page's own stands there. */
export function titled(name: () => string | null | undefined) {
  $effect(() => {
    const known = name();
    if (known) document.title = `${known} · Loom`;
  });
}
