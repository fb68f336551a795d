// The names of those who are in the organisation, for pages that have their ids.
import { api, data, type Schemas } from './api';
import { session } from './session.svelte';

export const people = $state<{ names: Record<string, string>; all: Schemas['Member'][] }>({ names: {}, all: [] });
let asked = false;

/** Loads them once; who may not see them has ids. */
export async function loadPeople() {
  const org = session.me?.org_id;
  if (asked || !org) return;
  asked = true;
  try {
    const page = await data(api.GET('/api/orgs/{org}/members', { params: { path: { org }, query: { limit: 200 } } }));
    people.all = page.members;
    people.names = Object.fromEntries(page.members.map((one) => [one.user_id, one.name || one.email]));
  } catch {
    asked = false;
  }
}

export function nameOf(user: string | null | undefined): string {
  if (!user) return 'a service key';
  if (user === session.me?.user?.id) return 'you';
  return people.names[user] ?? `${user.slice(0, 8)}…`;
}
