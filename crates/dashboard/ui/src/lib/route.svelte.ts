// Where we are: the path and the query of the address, so that every state is a link.

function here() {
  return { path: location.pathname, query: new URLSearchParams(location.search) };
}

export const route = $state(here());

function read() {
  Object.assign(route, here());
}

window.addEventListener('popstate', read);

/** Goes to an address of the dashboard. */
export function go(to: string, { replace = false } = {}) {
  if (to === location.pathname + location.search) return;
  history[replace ? 'replaceState' : 'pushState'](null, '', to);
  read();
  if (!replace) window.scrollTo(0, 0);
}

/** The address of here with other values in its query; null takes one away. */
export function withQuery(values: Record<string, string | null>): string {
  const query = new URLSearchParams(route.query);
  for (const [name, value] of Object.entries(values)) {
    if (value === null || value === '') query.delete(name);
    else query.set(name, value);
  }
  const text = query.toString();
  return route.path + (text ? `?${text}` : '');
}

/** Links of the dashboard go on without loading the page again. */
export function follow(event: MouseEvent) {
  if (event.defaultPrevented || event.button !== 0) return;
  if (event.metaKey || event.ctrlKey || event.shiftKey || event.altKey) return;
  const link = (event.target as Element | null)?.closest('a');
  if (!link || link.target || link.hasAttribute('download') || link.origin !== location.origin) return;
  if (!isPage(link.pathname)) return;
  // A place on this page is the browser's.
  if (link.hash && link.pathname === location.pathname && link.search === location.search) return;
  event.preventDefault();
  go(link.pathname + link.search);
}

const THEIRS = ['/api', '/auth', '/v1', '/proxy', '/git', '/ping', '/docs', '/health', '/metrics', '/account'];

function isPage(path: string): boolean {
  return !THEIRS.some((prefix) => path === prefix || path.startsWith(`${prefix}/`));
}
